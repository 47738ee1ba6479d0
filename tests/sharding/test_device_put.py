"""`device_put` moves modules in place, with the values of all Variables and arrays, and all or nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tests.raising import raises
from tests.user_modules import Affine, Holder, Pair

import liftnn
from liftnn import errors

FIRST, SECOND = jax.devices()[:2]
MESH = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
ROWS, WHOLE = NamedSharding(MESH, jax.P("x")), NamedSharding(MESH, jax.P())


def arrays(tree):
    """The arrays of a tree of modules by path."""
    flat = liftnn.state(tree).flat().items()
    return {path: x.raw_value if isinstance(x, liftnn.Variable) else x for path, x in flat}


def make():
    model = Holder(
        pair=Pair(), table=jnp.ones(4), host=np.ones(4), layers=[liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))]
    )
    model.pair.first.empty = liftnn.Cache(liftnn.Empty)
    model.itself = model
    return model


@pytest.mark.sample(3)
@pytest.mark.parametrize("place", [SECOND, WHOLE, jax.sharding.SingleDeviceSharding(SECOND)])
def test_all_arrays_are_where_jax_puts_them(place):
    model = make()
    before = {path: x for path, x in arrays(model).items() if x is not liftnn.Empty}
    assert liftnn.device_put(model, place) is model
    after = arrays(model)
    for path, x in before.items():
        expected = jax.device_put(x, place)
        assert after[path].sharding == expected.sharding
        assert after[path].dtype == expected.dtype
        assert jnp.array_equal(after[path], expected)
    assert model.pair.first.empty.value is liftnn.Empty


def test_variables_stay_the_same_objects_and_shared():
    model = make()
    w, key = model.pair.first.w, model.layers[0].rngs.key
    liftnn.device_put(model, SECOND)
    assert model.pair.first.w is model.pair.second.w is w
    assert model.layers[0].rngs.key is key
    assert model.itself is model
    assert w.value.devices() == {SECOND}


def test_typed_keys_draw_the_same_numbers():
    rngs, other = liftnn.Rngs(0), liftnn.Rngs(0)
    liftnn.device_put(rngs, SECOND)
    draws = rngs.params(), other.params()
    assert draws[0].devices() == {SECOND}
    assert (jax.random.key_data(draws[0]) == jax.random.key_data(draws[1])).all()


def test_a_model_and_its_optimizer_train_on_the_new_device():
    model, other = Affine(), Affine()
    optimizer, plain = (liftnn.Optimizer(m, optax.adam(0.1)) for m in (model, other))

    @liftnn.jit
    def step(model, optimizer, x):
        optimizer.update(model, liftnn.grad(lambda model: model.loss(x))(model))

    step(model, optimizer, jnp.ones(3))
    moved = liftnn.device_put((model, optimizer), SECOND)
    assert moved[0] is model
    assert moved[1] is optimizer
    for _ in range(2):
        step(model, optimizer, jnp.ones(3))
    for _ in range(3):
        step(other, plain, jnp.ones(3))
    assert {x.devices() == {SECOND} for x in arrays(moved).values()} == {True}
    assert jnp.allclose(model.w.value, other.w.value)


def test_entries_by_filter_and_none():
    model = Holder(a=Holder(w=liftnn.Param(jnp.ones(4))), b=liftnn.Variable(jnp.ones(3)))
    placed = liftnn.StateSharding({liftnn.PathContains("a"): ROWS, ...: None})
    liftnn.device_put(model, placed)
    assert model.a.w.value.sharding == ROWS
    assert not model.b.value.committed


def test_a_state_of_declared_shardings():
    model = Holder(w=liftnn.Param(jnp.ones((2, 4)), sharding=(None, "x")), b=liftnn.Param(jnp.ones(3)))
    liftnn.device_put(model, liftnn.get_named_sharding(model, MESH))
    assert model.w.value.sharding.spec == jax.P(None, "x")
    assert model.b.value.sharding.spec == jax.P()


def test_a_tree_prefix_and_arrays_outside_of_modules():
    model, w, x = Affine(), liftnn.Param(jnp.ones(4)), jnp.ones(4)
    moved = liftnn.device_put({"model": model, "rest": (w, x, 1.0)}, {"model": SECOND, "rest": ROWS})
    assert moved["model"] is model
    assert moved["rest"][0] is w
    assert model.w.value.devices() == {SECOND}
    assert w.value.sharding == moved["rest"][1].sharding == ROWS
    assert not x.committed


def test_a_shared_variable_has_one_place():
    one, other = Affine(), Affine()
    other.w = one.w
    message = (
        f"[0].w and [1].w are the same Param, but they have different prefixes: {FIRST!r} and {SECOND!r}.\n"
        "Use the same prefix for both, or pass `liftnn.clone(module)` for one of them."
    )
    with raises(errors.AliasingError, message):
        liftnn.device_put((one, other), (FIRST, SECOND))
    assert not one.w.value.committed
    liftnn.device_put((one, other), (None, SECOND))  # None leaves where it is what only the first one has
    assert one.w.value.devices() == {SECOND}


def test_a_state_is_moved_as_jax_moves_it():
    state = liftnn.device_put(liftnn.state(Affine()), SECOND)
    assert state["w"].value.devices() == {SECOND}


def test_a_sharding_that_does_not_fit_changes_nothing():
    model = Holder(a=liftnn.Param(jnp.ones(4)), b=liftnn.Param(jnp.ones(3)), c=jnp.ones(5))
    with pytest.raises(
        liftnn.ShardingError, match=r"(?s)cannot be moved:.  b \(a Param of shape \(3,\)\).*\n  c "
    ):
        liftnn.device_put(model, ROWS)
    assert not model.a.value.committed


def test_a_compiled_call_sees_the_move():
    model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
    f, x = liftnn.jit(lambda model, x: model(x)), np.ones((1, 2), np.float32)
    expected = f(model, x)
    f(model, x)
    liftnn.device_put(model, SECOND)
    assert f(model, x).devices() == {SECOND}
    assert jnp.array_equal(f(model, x), jax.device_put(expected, SECOND))


def test_it_works_inside_a_transform():
    model = Affine()
    liftnn.jit(lambda model: liftnn.device_put(model, FIRST) and None)(model)
    assert model.w.value.tolist() == [1.0, 1.0, 1.0]


ONE_AXIS = jax.make_mesh((1,), ("data",))


@pytest.mark.parametrize(
    "place, found, remedy",
    [
        ("cpu", "'cpu'", "Pass a device, such as `jax.devices('cpu')[0]`."),
        (0, "0", "Pass a device, such as `jax.devices()[0]`."),
        (
            PartitionSpec("data"),
            repr(PartitionSpec("data")),
            "Pass a sharding: `jax.sharding.NamedSharding(mesh, spec)`.",
        ),
        (
            ONE_AXIS,
            f"{ONE_AXIS!r:.80}",
            "Pass a sharding on the mesh, such as `jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())`.",
        ),
    ],
    ids=["name", "number", "spec", "mesh"],
)
def test_what_is_neither_a_device_nor_a_sharding_is_an_error(place, found, remedy):
    with raises(errors.ArgumentTypeError, f"device_put takes a device or a sharding, not {found}.\n{remedy}"):
        liftnn.device_put(Affine(), place)
