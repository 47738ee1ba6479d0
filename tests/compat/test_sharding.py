"""Abstract arrays have the shardings that their Variables declare, as in Flax NNX."""

import jax
import pytest
from tests.compat.oracle import assert_equal_in_both, run

SETUP = """
make_mesh = lambda kind: jax.make_mesh((1, 1), ("data", "model"), axis_types=(kind,) * 2)
make = lambda: nnx.Linear(4, 8, rngs=nnx.Rngs(0), kernel_metadata={"out_sharding": (None, "model")})
describe = lambda v: (str(v.sharding.spec), sorted(v.sharding.mesh.shape), v.shape, str(v.dtype))
values = lambda m: [describe(m.kernel.get_value()), describe(m.bias.get_value())]
"""


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
@pytest.mark.parametrize("eager", [True, False])
def test_eval_shape_gives_the_declared_shardings_on_a_mesh(kind, eager):
    assert_equal_in_both(f"""{SETUP}
with jax.set_mesh(make_mesh(jax.sharding.AxisType.{kind})), nnx.use_eager_sharding({eager}):
    result = [values(nnx.eval_shape(make)), values(nnx.eval_shape(lambda m: (m, 1.0), make())[0])]
""")


def test_eval_shape_without_a_mesh_gives_no_shardings():
    assert_equal_in_both(f"""{SETUP}
with nnx.use_eager_sharding(False):
    result = [x.get_value().sharding for x in jax.tree.leaves(
        nnx.state(nnx.eval_shape(make)), is_leaf=lambda x: isinstance(x, nnx.Variable))]
""")


def test_eval_shape_uses_the_rules_of_logical_axes():
    assert_equal_in_both(f"""{SETUP}
make = lambda: nnx.Param(jnp.ones((2, 2)), out_sharding=("embed", None))
with jax.set_mesh(make_mesh(jax.sharding.AxisType.Auto)), nnx.logical_axis_rules([("embed", "data")]):
    result = describe(nnx.eval_shape(make).get_value())
""")


INDIVISIBLE = """
class Net(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.ones((4, 3)), out_sharding=(None, "model"))

with jax.set_mesh(jax.make_mesh((2,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))):
    spec = make(Net)().w.get_value().sharding.spec
"""


@pytest.mark.parametrize("library", ["flax", "liftnn"])
def test_in_jit_an_axis_is_left_whole_that_a_declared_sharding_does_not_divide(library):
    assert run(f"make = nnx.jit\n{INDIVISIBLE}", library)["spec"] == jax.P()
    message = {
        "flax": "the dimension size is 3",
        "liftnn": r"'model'\): axis 1 of size 3 cannot be divided into 2 eq",
    }
    with pytest.raises(ValueError, match=message[library]):
        run(f"make = lambda f: f\n{INDIVISIBLE}", library)


def test_specs_of_a_module_are_a_module_of_the_same_structure():
    assert_equal_in_both("""
class Net(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.ones((4, 3)), out_sharding=(None, "model"))
        self.noted = nnx.Variable(jnp.ones(2), note="kept")
        self.array, self.tree = jnp.ones(2), nnx.Dict(a=nnx.List([jnp.ones(1)]), b=nnx.Param(jnp.ones(2)))

with jax.set_mesh(jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))):
    net = Net()
    specs = nnx.get_partition_spec([net, jnp.ones(2), net.w])
    result = [
        type(specs[0]).__name__,
        [str(s) for s in jax.tree.leaves(specs)],
        [s.spec for s in jax.tree.leaves(nnx.get_named_sharding(net, jax.sharding.get_mesh()))],
        jax.tree.structure(net) == jax.tree.structure(specs[0]),
    ]
""")
