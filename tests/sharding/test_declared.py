"""Declared shardings on eight devices: every Variable has its own after init and after a step; nothing is gathered."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.experimental.layout import Format, Layout
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tests.same import assert_same

import liftnn
from liftnn import initializers

GRID = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
RULES = {"embed": None, "hidden": "model"}


class MLP(liftnn.Module):
    """Two layers that declare by names of meaning how they are sharded, and state that declares nothing."""

    def __init__(self, rngs):
        normal = initializers.lecun_normal()
        self.up = liftnn.Linear(
            8,
            16,
            kernel_init=liftnn.with_partitioning(normal, ("embed", "hidden")),
            bias_metadata={"sharding": ("hidden",)},
            rngs=rngs,
        )
        self.down = liftnn.Linear(
            16, 8, kernel_init=liftnn.with_partitioning(normal, ("hidden", "embed")), rngs=rngs
        )
        self.norm = liftnn.BatchNorm(8, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.down(jnp.tanh(self.up(x))))


def make():
    model = MLP(liftnn.Rngs(0))
    return model, liftnn.Optimizer(model, optax.adam(0.1))


def train(model, optimizer, x, y):
    loss, grads = liftnn.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model)
    optimizer.update(model, grads)
    return loss


EXPECTED = {
    ("up", "kernel"): P(None, "model"),
    ("up", "bias"): P("model"),
    ("down", "kernel"): P("model", None),
}


def assert_placed(model, optimizer):
    """Every Variable has its declared sharding, and its moments have it too."""
    for path, x in liftnn.state(model).flat().items():
        spec = EXPECTED.get(path, P())
        assert x.value.sharding.is_equivalent_to(NamedSharding(GRID, spec), x.ndim), path
        if spec != P():
            shard = NamedSharding(GRID, spec).shard_shape(x.shape)
            assert {s.data.shape for s in x.value.addressable_shards} == {shard}
    for moments in optimizer.opt_state[0][1:]:
        for path, x in moments.flat().items():
            spec = EXPECTED.get(path, P())
            assert x.value.sharding.is_equivalent_to(NamedSharding(GRID, spec), x.ndim), path


def test_every_variable_has_its_sharding_after_init_and_after_a_step_and_nothing_is_gathered():
    shardings = liftnn.get_named_sharding(liftnn.eval_shape(make), GRID, RULES)
    init = liftnn.jit(make, out_shardings=shardings)
    assert "all-gather" not in init.lower().compile().as_text()
    model, optimizer = init()
    assert_placed(model, optimizer)

    rows = NamedSharding(GRID, P("data"))
    x, y = (jax.device_put(jnp.linspace(*ends, 64).reshape(8, 8), rows) for ends in ((-1.0, 1.0), (0.0, 2.0)))
    step = liftnn.jit(train, in_shardings=(*shardings, rows, rows), donate_argnums=(0, 1))
    assert "all-gather" not in step.lower(model, optimizer, x, y).compile().as_text()
    plain = make()
    for _ in range(2):
        loss = step(model, optimizer, x, y)
        expected = liftnn.jit(train)(*plain, np.asarray(x), np.asarray(y))
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
        assert_placed(model, optimizer)


@pytest.mark.thorough
def test_a_step_without_shardings_keeps_those_of_its_arguments():
    model, optimizer = liftnn.jit(
        make, out_shardings=liftnn.get_named_sharding(liftnn.eval_shape(make), GRID, RULES)
    )()
    x = jax.device_put(jnp.ones((8, 8)), NamedSharding(GRID, P("data")))
    train_step = liftnn.jit(train)
    for _ in range(2):
        train_step(model, optimizer, x, x)
    kernel = model.up.kernel.value
    assert kernel.sharding.shard_shape(kernel.shape) == (8, 4)


def test_specs_are_those_of_flax():
    ours = liftnn.Linear(
        2,
        3,
        kernel_init=liftnn.with_partitioning(initializers.lecun_normal(), ("a", None)),
        rngs=liftnn.Rngs(0),
    )
    theirs = nnx.eval_shape(
        lambda: nnx.Linear(
            2,
            3,
            kernel_init=nnx.with_partitioning(
                nnx.initializers.lecun_normal(), ("a", None), eager_sharding=False
            ),
            rngs=nnx.Rngs(0),
        )
    )
    expected = nnx.get_partition_spec(nnx.state(theirs))
    actual = liftnn.get_partition_spec(ours)
    for name in ("kernel", "bias"):
        assert actual[name].value == expected[name].get_value()
    assert type(actual["kernel"]) is liftnn.Param


@pytest.mark.parametrize(
    "declared, rules, expected",
    [
        (("x", None), {}, P("x", None)),
        (P("x"), {}, P("x")),
        (NamedSharding(GRID, P("model")), {}, P("model")),
        ((("a", "b"), "c"), {"a": "x", "c": ("y", "z")}, P(("x", "b"), ("y", "z"))),
        ((("a", "b"),), {"a": None, "b": None}, P(None)),
        (("a",), {"a": ["x", "y"]}, P(("x", "y"))),
        (None, {}, P()),
    ],
)
@pytest.mark.parametrize("name", ["sharding", "out_sharding"])
def test_declarations_and_rules(name, declared, rules, expected):
    v = liftnn.Variable(jnp.ones((4, 4)), **{name: declared})
    assert liftnn.get_partition_spec(v, rules).value == expected


@pytest.mark.parametrize("own", [{"rows": "x"}, (("rows", "x"),)])
def test_a_variable_may_have_rules_of_its_own(own):
    v = liftnn.Variable(jnp.ones((4, 4)), sharding=("rows", "cols"), sharding_rules=own)
    assert liftnn.get_partition_spec(v).value == P("x", "cols")
    assert liftnn.get_partition_spec(v, {"cols": "y", "rows": "x"}).value == P("x", "y")


def test_a_tree_of_modules_gives_a_tree_of_states():
    model = liftnn.Linear(2, 3, kernel_metadata={"sharding": (None, "model")}, rngs=liftnn.Rngs(0))
    specs = liftnn.get_partition_spec({"a": [model], "state": liftnn.state(model), "x": jnp.ones(2)})
    assert specs["a"][0]["kernel"].value == specs["state"]["kernel"].value == P(None, "model")
    assert specs["x"] == P()


@pytest.mark.thorough
def test_a_state_can_be_placed_and_constrained_as_in_flax():
    def placed():
        model = MLP(liftnn.Rngs(0))
        state = liftnn.state(model)
        specs = liftnn.get_partition_spec(state, RULES)
        liftnn.update(model, jax.lax.with_sharding_constraint(state, specs))
        return model

    with liftnn.use_eager_sharding(False), jax.set_mesh(GRID):
        model = liftnn.jit(placed)()
    assert model.up.kernel.value.sharding.shard_shape((8, 16)) == (8, 4)
    other = MLP(liftnn.Rngs(0))
    state = liftnn.state(other)
    liftnn.update(other, jax.device_put(state, liftnn.get_named_sharding(state, GRID, RULES)))
    assert other.up.kernel.value.sharding.shard_shape((8, 16)) == (8, 4)
    assert_same(model, other)


@pytest.mark.thorough
def test_a_state_of_specs_is_taken_by_shard_map():
    model = MLP(liftnn.Rngs(0))
    specs = liftnn.get_partition_spec(model.up, RULES)
    call = liftnn.shard_map(
        lambda m, x: m(x), mesh=GRID, in_specs=(specs, P("data")), out_specs=P("data", "model")
    )
    x = jnp.linspace(-1.0, 1.0, 32).reshape(4, 8)
    np.testing.assert_allclose(call(model.up, x), model.up(x), rtol=1e-4, atol=1e-5)


def test_equal_declarations_are_not_traced_again_and_can_be_pickled():
    call = liftnn.jit(lambda model, x: model(x))
    for _ in range(2):
        call(MLP(liftnn.Rngs(0)), jnp.ones((2, 8)))
    assert call.n_traces == 1
    model = MLP(liftnn.Rngs(0))
    assert_same(pickle.loads(pickle.dumps(model)), model)


def test_metadata_of_the_variable_itself_goes_before_that_of_its_initializer():
    init = liftnn.with_partitioning(initializers.zeros_init(), ("x",), note="initializer", tag="a")
    v = liftnn.Param(init(jax.random.key(0), (3,)), note="variable")
    assert v.get_metadata() == {"sharding": ("x",), "note": "variable", "tag": "a"}
    assert v.value.tolist() == [0.0] * 3


def test_the_sharding_of_a_variable_is_an_option_of_jit():
    def make():
        return liftnn.Param(jnp.ones((8, 4)), sharding=("embed", "hidden"))

    sharding = liftnn.get_named_sharding(liftnn.eval_shape(make), GRID, RULES)
    made = liftnn.jit(make, out_shardings=sharding)()
    assert made.value.sharding == NamedSharding(GRID, P(None, "model"))
    read = make()
    assert liftnn.jit(lambda v: v.sum(), in_shardings=(sharding,))(read) == 32
    assert read.value.sharding == made.value.sharding


def test_a_declared_format_places_with_its_layout():
    wanted = Format(Layout((1, 0)), NamedSharding(GRID, P("data", "model")))
    v = liftnn.Param(jnp.ones((4, 8)), out_sharding=wanted)
    assert v.value.format == jax.device_put(jnp.ones((4, 8)), wanted).format
    assert liftnn.get_partition_spec(v).value == P("data", "model")


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("n", [3, 4], ids=["layers that no axis divides", "as many layers as devices"])
def test_what_a_layer_declares_holds_for_its_own_axes_in_a_stack(kind, n):
    """The stack, its moments and its layers are sharded along the axes that the layer names; a list is the oracle."""
    init = liftnn.with_partitioning(initializers.lecun_normal(), ("model", None))

    def layer(rngs):
        return liftnn.Linear(8, 8, kernel_init=init, rngs=rngs)

    @liftnn.jit
    def step(model, optimizer, x):
        optimizer.update(model, liftnn.grad(lambda model: (model(x) ** 2).mean())(model))

    x, tx = jnp.ones((2, 8)), optax.adam(0.1)
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind,) * 2)
    expected = NamedSharding(mesh, P(None, "model", None))
    with jax.set_mesh(mesh):
        stack = liftnn.Stack(n, layer, rngs=liftnn.Rngs(0))
        other, plain = liftnn.Stack.from_list(stack.to_list()), liftnn.Sequential(*stack.to_list())
        optimizer, of_list = liftnn.Optimizer(stack, tx), liftnn.Optimizer(plain, tx)
        kernel = stack.layers.kernel
        for _ in range(2):
            for all_ in (kernel, other.layers.kernel, optimizer.opt_state[0].mu["layers"]["kernel"]):
                assert all_.get_metadata("sharding") == (None, "model", None)
                assert all_.value.sharding.is_equivalent_to(expected, 3)
            for one in (stack[1].kernel, stack.to_list()[1].kernel):
                assert one.get_metadata("sharding") == ("model", None)
            step(stack, optimizer, x)
            step(plain, of_list, x)
        for one, other in zip(stack.to_list(), plain.layers, strict=True):
            np.testing.assert_allclose(one.kernel.value, other.kernel.value, atol=1e-6)
