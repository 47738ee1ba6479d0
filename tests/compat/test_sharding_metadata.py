"""A declared sharding is found under the name that Flax NNX stores it with, whatever name it was declared with."""

import jax.numpy as jnp
import pytest
from tests.compat.oracle import assert_equal_in_both

import liftnn
from liftnn.compat import nnx

NAMES = ("sharding", "sharding_names", "out_sharding")
READ = (
    "[v.out_sharding, v.sharding_names, v.get_metadata('out_sharding'), v.has_metadata('out_sharding'), "
    "v.get_metadata()['out_sharding'], v.get_metadata().get('out_sharding'), 'out_sharding' in v.get_metadata(), "
    "v.get_metadata().pop('out_sharding'), nnx.get_partition_spec(v).get_value()]"
)


def create(name):
    """The text that creates a Variable with a sharding that is declared under a name."""
    return f"""
nnx.use_eager_sharding(False)
v = nnx.Param(jnp.ones((2, 2)), {name}=("embed", None))
"""


@pytest.fixture(autouse=True)
def no_eager_sharding():
    import flax.nnx

    with nnx.use_eager_sharding(False), flax.nnx.use_eager_sharding(False):
        yield


@pytest.mark.parametrize("name", NAMES)
def test_a_sharding_that_is_declared_at_creation_is_found(name):
    assert_equal_in_both(f"{create(name)}result = {READ}")


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("second", NAMES)
def test_a_sharding_that_is_set_replaces_the_one_that_is_there(first, second):
    assert_equal_in_both(f"{create(first)}v.set_metadata({second}=('mlp', 'embed'))\nresult = {READ}")
    assert_equal_in_both(f"{create(first)}v.set_metadata('{second}', ('mlp', 'embed'))\nresult = {READ}")
    assert_equal_in_both(f"{create(first)}v.set_metadata({{'{second}': ('mlp', None)}})\nresult = {READ}")


@pytest.mark.parametrize("name", NAMES)
def test_a_sharding_that_is_set_to_none_or_deleted_is_gone(name):
    spec = "nnx.get_partition_spec(v).get_value()"
    assert_equal_in_both(
        f"{create(name)}v.set_metadata(out_sharding=None)\nresult = [v.sharding_names, {spec}]"
    )
    gone = "v.has_metadata('out_sharding'), hasattr(v, 'out_sharding')"
    assert_equal_in_both(f"{create(name)}v.del_metadata('out_sharding')\nresult = [{gone}, {spec}]")


@pytest.mark.parametrize("name", NAMES)
def test_metadata_with_another_sharding_make_a_variable_with_it(name):
    assert_equal_in_both(f"""{create(name)}
metadata = v.get_metadata()
metadata['out_sharding'] = ('mlp', None)
v = nnx.Param(v[...], **metadata)
result = {READ}
""")


def test_metadata_without_the_sharding_make_a_variable_without_it():
    assert_equal_in_both(f"""{create("sharding")}
metadata = v.get_metadata()
del metadata['out_sharding']
result = [nnx.Param(v[...], **metadata).has_metadata('out_sharding'), 'out_sharding' in metadata, metadata.get('x', 3)]
""")


def test_an_entry_that_does_not_exist_is_a_key_error():
    v = nnx.Param(jnp.ones((2, 2)), sharding=("embed", None))
    metadata = v.get_metadata()
    with pytest.raises(KeyError, match="other"):
        metadata["other"]
    del metadata["out_sharding"]
    with pytest.raises(KeyError, match="out_sharding"):
        metadata["out_sharding"]


def test_liftnn_keeps_the_name_that_a_sharding_was_declared_with():
    v = liftnn.Param(jnp.ones((2, 2)), sharding=("embed", None))
    assert v.get_metadata() == {"sharding": ("embed", None)}
    v.out_sharding = ("mlp", None)
    assert v.sharding == ("mlp", None)
    v.set_metadata(out_sharding=("embed", None), note=1)
    assert v.get_metadata() == {"sharding": ("embed", None), "note": 1}
    v.set_metadata(sharding=("mlp", None))
    assert v.sharding == ("mlp", None)


def test_what_is_set_under_liftnns_name_is_read_under_it():
    v = liftnn.Param(jnp.ones((2, 2)), out_sharding=("embed", None))
    v.sharding = ("mlp", None)
    assert v.sharding == v.out_sharding == ("mlp", None)


@pytest.mark.parametrize("name", NAMES)
def test_a_mapped_axis_is_removed_and_added_under_each_name(name):
    assert_equal_in_both(f"""
nnx.use_eager_sharding(False)
seen = []
v = nnx.Param(jnp.ones((3, 2)), {name}=("layers", "in"))
@nnx.vmap(transform_metadata={{nnx.PARTITION_NAME: "layers"}})
def f(v):
    seen.append(v.out_sharding)
    return nnx.Param(v[...], {name}=v.out_sharding)
result = [f(v).out_sharding, v.out_sharding, seen]
""")


@pytest.mark.parametrize("mesh", ["", ", mesh=None", ", mesh=jax.make_mesh((1,), ('embed',))"])
def test_with_partitioning_leaves_an_entry_for_the_mesh(mesh):
    source = f"""
nnx.use_eager_sharding(False)
init = nnx.with_partitioning(nnx.initializers.ones, ("embed", None){mesh})
v = nnx.Linear(2, 2, kernel_init=init, rngs=nnx.Rngs(0)).kernel
result = [v.mesh is None, v.has_metadata("mesh"), sorted(set(v.get_metadata()) & {{"mesh", "out_sharding"}})]
"""
    assert_equal_in_both(source)
