"""`make_sharded` and `abstract`: each Variable is born where it is declared, and known before it is computed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec as P
from tests.user_modules import Holder

import liftnn

MESHES = [
    jax.make_mesh((4, 2), ("data", "model"), axis_types=(t,) * 2) for t in (AxisType.Auto, AxisType.Explicit)
]
RULES = {"hidden": "model", "embed": "data"}
each_mesh = pytest.mark.parametrize("mesh", MESHES)


class Tied(liftnn.Module):
    """A table that is used twice, a cycle, an array that is not in a Variable, and random keys."""

    def __init__(self, rngs):
        init = liftnn.with_partitioning(liftnn.initializers.normal(), ("hidden", "embed"))
        self.embed = liftnn.Embed(8, 16, embedding_init=init, rngs=rngs)
        self.table = self.embed.embedding
        self.me = self
        self.scale = jnp.full(16, 2.0)
        self.dropout = liftnn.Dropout(0.5, rngs=rngs)
        self.empty = liftnn.Variable(jnp.zeros((0, 4)), sharding=("embed",))


def make():
    model = Tied(liftnn.Rngs(0))
    return model, liftnn.Optimizer(model, optax.adam(0.1), wrt=liftnn.Param)


@pytest.mark.thorough
@each_mesh
def test_a_model_and_its_optimizer_are_created_on_the_mesh_with_the_values_of_the_plain_call(mesh):
    model, optimizer = liftnn.make_sharded(make, mesh, RULES)
    plain, _ = make()
    assert model.table is model.embed.embedding
    assert model.me is model
    table = NamedSharding(mesh, P("model", "data"))
    for x in (model.table.value, optimizer.opt_state[0].mu["embed"]["embedding"].value):
        assert x.sharding.is_equivalent_to(table, 2)
    whole = NamedSharding(mesh, P())
    for x in (model.scale, model.dropout.rngs.key.value, optimizer.step.value):
        assert x.sharding.is_equivalent_to(whole, x.ndim)
    np.testing.assert_allclose(model.table.value, plain.table.value, rtol=1e-6)


@each_mesh
def test_what_is_abstract_becomes_what_is_made(mesh):
    shapes, made = liftnn.abstract(make, mesh, RULES), liftnn.make_sharded(make, mesh, RULES)
    assert shapes[0].table is shapes[0].embed.embedding
    assert shapes[0].me is shapes[0]
    for module, other in zip(shapes, made, strict=True):
        ours, theirs = (liftnn.state(each).flat() for each in (module, other))
        assert ours.keys() == theirs.keys()
        for path, x in ours.items():
            a, b = (v.raw_value if isinstance(v, liftnn.Variable) else v for v in (x, theirs[path]))
            assert isinstance(a, jax.ShapeDtypeStruct)
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert b.sharding.is_equivalent_to(a.sharding, b.ndim), path


def test_an_abstract_weak_type_promotes_as_that_of_what_is_made():
    def scale():
        return Holder(scale=liftnn.Variable(jnp.asarray(1.5)))

    def scaled(model):
        return model.scale.value * jnp.ones(2, jnp.bfloat16)

    shapes, model = liftnn.abstract(scale, MESHES[0]), liftnn.make_sharded(scale, MESHES[0])
    assert liftnn.eval_shape(scaled, shapes).dtype == scaled(model).dtype == jnp.bfloat16


@pytest.mark.sample(2)
@each_mesh
def test_a_step_is_compiled_ahead_of_time_from_the_abstract_model(mesh):
    def step(model, optimizer, x):
        loss, grads = liftnn.value_and_grad(lambda m: (m.table.value * x).sum())(model)
        optimizer.update(model, grads)
        return loss

    with jax.set_mesh(mesh):
        shapes = liftnn.abstract(make, rules=RULES)
        x = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, P()))
        compiled = liftnn.jit(step).lower(*shapes, x).compile()
        made = liftnn.make_sharded(make, rules=RULES)
        x = jax.device_put(jnp.float32(2.0), NamedSharding(mesh, P()))
        expected = (made[0].table.value * 2).sum()
        np.testing.assert_allclose(compiled(*made, x), expected, rtol=1e-5)
    assert compiled.memory_analysis().argument_size_in_bytes > 0


def test_devices_that_are_not_here_are_described_by_an_abstract_mesh():
    mesh = AbstractMesh((4, 4), ("data", "model"))
    assert liftnn.abstract(make, mesh, RULES)[0].table.value.sharding.shard_shape((8, 16)) == (2, 4)


def test_the_current_mesh_and_rules_are_the_defaults():
    with liftnn.axis_rules({**RULES, "batch": "data"}, MESHES[0]):
        model, _ = liftnn.make_sharded(make)
    assert model.table.value.sharding.spec == P("model", "data")


def test_no_whole_array_is_computed():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    init = liftnn.with_partitioning(liftnn.initializers.lecun_normal(), (None, "d"))
    whole = 1024 * 4096 * 4

    def make():
        return liftnn.Linear(1024, 4096, use_bias=False, kernel_init=init, rngs=liftnn.Rngs(0))

    with liftnn.axis_rules({}, mesh):
        compiled = liftnn.jit(make).lower().compile()
    assert compiled.memory_analysis().temp_size_in_bytes < whole // 2


def test_a_rule_that_matches_nothing_is_a_warning_that_names_what_is_declared():
    text = (
        r"The rules for 'heads', 'mlp' match no axis that a Variable declares\. "
        r"The declared axes are: 'embed', 'hidden'\."
    )
    rules = {**RULES, "heads": "model", "mlp": "model", "norm": None}
    for f in (liftnn.make_sharded, liftnn.abstract):
        with pytest.warns(liftnn.ShardingWarning, match=text) as caught:
            f(make, MESHES[0], rules)
        assert caught[0].filename == __file__
    with pytest.warns(liftnn.ShardingWarning, match=text):
        liftnn.get_named_sharding(make(), MESHES[0], rules)


def test_an_exception_of_the_function_leaves_rules_and_mesh_as_they_were():
    def fail():
        raise KeyError("mine")

    for f in (liftnn.make_sharded, liftnn.abstract):
        with pytest.raises(KeyError, match="mine"):
            f(fail, MESHES[0], RULES)
    assert jax.sharding.get_abstract_mesh().empty
    assert liftnn.using_eager_sharding()
    assert liftnn.get_partition_spec(liftnn.Param(jnp.ones(2), sharding=("hidden",))).value == P("hidden")


def test_inside_jit_a_model_is_created_on_the_mesh_too():
    mesh = MESHES[0]
    with jax.set_mesh(mesh):
        made = liftnn.jit(lambda: liftnn.make_sharded(make, mesh, RULES)[0])()
    assert made.table.value.sharding.is_equivalent_to(NamedSharding(mesh, P("model", "data")), 2)


def test_a_stack_of_layers_declares_its_first_axis_too():
    init = liftnn.with_partitioning(liftnn.initializers.lecun_normal(), (None, "hidden"))

    @liftnn.vmap(transform_metadata={liftnn.PARTITION_NAME: "layers"})
    def layers(key):
        return liftnn.Linear(4, 8, kernel_init=init, rngs=liftnn.Rngs(key))

    made = liftnn.make_sharded(
        lambda: layers(jax.random.split(jax.random.key(0), 4)),
        MESHES[0],
        {"layers": "data", "hidden": "model"},
    )
    assert made.kernel.value.sharding.spec == P("data", None, "model")


def test_variables_and_arrays_may_be_returned_without_a_module():
    made = liftnn.make_sharded(
        lambda: {
            "w": liftnn.Param(jnp.ones((8, 2)), sharding=("data",)),
            "x": jnp.ones(3),
            "none": None,
            "n": 3,
        },
        MESHES[0],
    )
    assert made["w"].value.sharding.spec == P("data")
    assert made["x"].sharding.is_equivalent_to(NamedSharding(MESHES[0], P()), 1)
    assert (made["none"], made["n"]) == (None, 3)
