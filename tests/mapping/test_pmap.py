"""`pmap` on eight devices: what `vmap` computes on one of them, and where each lane lies."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from tests.raising import caught
from tests.same import assert_same
from tests.user_modules import Affine, Holder, Pair

import liftnn

DEVICES = jax.devices()
X = jnp.arange(24.0).reshape(8, 3)
SHARED_CALLS = liftnn.StateAxes({liftnn.Param: 0, ...: None})


def lanes():
    """A model with a lane of parameters for each device, and one count for all."""
    return liftnn.vmap(Affine, out_axes=SHARED_CALLS)(jnp.arange(8.0))


def shards(x):
    """The number of the device, and the numbers there, of each shard of an array."""
    return {shard.device.id: shard.data.tolist() for shard in x.addressable_shards}


def write(model, x, **options):
    """Writes to everything and attaches something, with a sum over the lanes."""
    model.w.value = model.w * 2 + x
    model.new = liftnn.Param(x + jax.lax.axis_index("i"))
    model.mode = "eval"
    return model(x, **options), jax.lax.psum(x.sum(), "i"), model


def normalize(model, x):
    """Writes what all lanes agree on to a model that they share."""
    model.b.value = jax.lax.pmean(x * model.w, "i")
    return x - model.b


def draw(rngs, x):
    """Random numbers of each lane's own."""
    return x + jax.random.normal(rngs.dropout(), x.shape)


CASES = {
    "mapped": (write, lambda: (lanes(), X), {"in_axes": (SHARED_CALLS, 0), "out_axes": (0, None, None)}),
    "shared": (normalize, lambda: (Affine(2.0), X), {"in_axes": (None, 0)}),
    "other axes": (normalize, lambda: (Affine(2.0), X.T), {"in_axes": (None, 1), "out_axes": -1}),
    "random": (draw, lambda: (liftnn.Rngs(0, dropout=1), X), {"in_axes": (None, 0)}),
    "random, the same": (draw, lambda: (liftnn.Rngs(0, dropout=1), X), {"in_axes": (None, 0), "split_rngs": False}),
    "method": (Affine(2.0).loss, lambda: (X,), {"in_axes": (0,)}),
    "tree": (
        lambda t: {"y": t["m"].w * t["x"]},
        lambda: ({"m": lanes(), "x": X},),
        {"in_axes": ({"m": SHARED_CALLS, "x": 0},)},
    ),
    "reduced": (
        lambda v, x: setattr(v, "value", x.sum()),
        lambda: (liftnn.BatchStat(0.0), X),
        {"in_axes": (None, 0), "reduce_writes": {liftnn.BatchStat: jnp.mean}},
    ),
    "of one size": (lambda x: Holder(v=liftnn.Param(x)), lambda: (1.0,), {"in_axes": (None,), "axis_size": 3}),
}  # fmt: skip


@pytest.mark.sample(10)
@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_vmap_computes(case):
    function, make, options = CASES[case]
    given, expected = make(), make()
    out = liftnn.pmap(function, "i", **options)(*given)
    assert_same((out, given), (liftnn.vmap(function, axis_name="i", **options)(*expected), expected))


def test_each_device_has_its_slice_and_all_of_what_is_shared():
    model, shared = lanes(), Affine(5.0)

    def f(model, shared, x):
        model.w.value = model.w + 1
        shared.b.value = shared.b + jax.lax.pmean(x, "i")
        return x * shared.w, jax.lax.psum(x, "i")

    call = liftnn.pmap(f, "i", in_axes=(SHARED_CALLS, None, 0), out_axes=(0, None))
    y, total = call(model, shared, X)
    assert shards(model.w.value) == {i: [[i + 1.0] * 3] for i in range(8)}
    assert shards(shared.b.value) == {i: [10.5, 11.5, 12.5] for i in range(8)}
    assert shards(y) == {i: [(X[i] * 5).tolist()] for i in range(8)}
    assert shards(total) == {i: X.sum(0).tolist() for i in range(8)}


def test_the_devices_are_those_that_are_given_in_their_order():
    call = liftnn.pmap(lambda x: x, devices=DEVICES[:2:-1])
    assert shards(call(jnp.arange(3))) == {7: [0], 6: [1], 5: [2]}
    assert shards(liftnn.pmap(lambda x: x, backend="cpu")(jnp.arange(2))) == {0: [0], 1: [1]}


def test_the_numbers_are_those_of_jax_pmap():
    def f(w, x):
        return jax.grad(lambda w: (jnp.sin(w * x) ** 2).sum())(w) / jax.lax.psum(x, "i")

    ours = liftnn.pmap(lambda v, x: f(v.value, x), "i", in_axes=(None, 0))(liftnn.Param(0.5), X)
    assert ours.tolist() == jax.pmap(f, "i", in_axes=(None, 0))(0.5, X).tolist()


@pytest.mark.thorough
def test_replicated_training_equals_training_with_the_whole_batch():
    def make():
        model = Pair()
        return model, liftnn.Optimizer(model, optax.adam(0.1))

    def train(average, model, optimizer, x):
        loss, grads = liftnn.value_and_grad(lambda model: (model(x) ** 2).mean())(model)
        optimizer.update(model, average(grads))
        return average(loss)

    one, many = make(), make()
    average = functools.partial(jax.lax.pmean, axis_name="i")
    step = liftnn.pmap(
        lambda *args: train(average, *args),
        "i",
        in_axes=(None, None, 0),
        out_axes=None,
        donate_argnums=(0, 1),
    )
    for _ in range(2):
        loss = step(*many, X)
        expected = train(lambda x: x, *one, X)
    assert jnp.allclose(loss, expected, rtol=1e-5)
    assert_same(many, one)
    assert int(many[0].first.calls.value) == 2
    assert many[0].second.w is many[0].first.w


def test_static_arguments_are_constants():
    call = liftnn.pmap(
        lambda x, times, model: x * len(times) * model.w,
        in_axes=(0, None, None),
        static_broadcasted_argnums=1,
    )
    assert call(X, "abc", Affine(2.0)).tolist() == (X * 6).tolist()
    call(X, "abc", Affine(3.0))
    assert call.n_traces == 1
    call(X, "ab", Affine(3.0))
    assert call.n_traces == 2


def test_keyword_arguments_are_mapped():
    call = liftnn.pmap(lambda model, *, x: model(x), in_axes=(None,))
    model = Affine(2.0)
    assert call(model, x=X).tolist() == (2 * X).tolist()
    assert int(model.calls.value) == 1


def test_arguments_with_axes_may_be_left_to_their_defaults():
    """Oracle: the call with all arguments."""
    weights, rows = liftnn.Param(jnp.arange(1.0, 9.0)), jnp.arange(16.0).reshape(8, 2)

    def scaled(weights, x, scale=2.0, shift=0.0):
        weights.value = weights.value + 1.0
        return (weights.value * x * scale + shift).sum()

    mapped = liftnn.pmap(scaled, in_axes=(0, 0, None, None))
    calls = [
        lambda: mapped(weights, rows),
        lambda: mapped(weights, x=rows),
        lambda: mapped(weights, rows, shift=5.0),
    ]
    for call, shift in zip(calls, (0.0, 0.0, 5.0), strict=True):
        for _ in range(3):
            before = weights.value
            assert call().tolist() == ((before[:, None] + 1) * rows * 2.0 + shift).sum(1).tolist()
            assert weights.value.tolist() == (before + 1).tolist()


def test_donated_slices_are_gone():
    call = liftnn.pmap(lambda v: setattr(v, "value", v + 1), donate_argnums=0)
    v = liftnn.Variable(jnp.zeros(8))
    call(v)
    before = v.value
    call(v)
    assert before.is_deleted()
    assert v.value.tolist() == [2.0] * 8


def test_a_compiled_stage_updates_the_slices():
    v = liftnn.Variable(jnp.arange(8.0))
    call = liftnn.pmap(lambda v: setattr(v, "value", v + jax.lax.psum(v.value, "i")), "i")
    call.lower(v).compile()(v)
    assert v.value.tolist() == (jnp.arange(8.0) + 28).tolist()
    assert shards(v.value)[7] == [35.0]


def test_gradients_flow_through_the_slices():
    def loss(map_, model, x):
        return map_(lambda m, x: m(x) ** 2, in_axes=(None, 0))(model, x).sum()

    of_pmap, of_vmap = (
        liftnn.grad(functools.partial(loss, t))(Affine(2.0), X) for t in (liftnn.pmap, liftnn.vmap)
    )
    assert_same(of_pmap, of_vmap)


def test_what_raises_in_a_slice_changes_nothing():
    def fail(model, x):
        model.w.value = model.w + x
        raise KeyError("half way")

    model, mesh = Affine(), jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(KeyError, match="half way"):
        liftnn.pmap(fail, in_axes=(None, 0))(model, X)
    with jax.set_mesh(mesh), pytest.raises(liftnn.ArgumentError, match="a mesh is already in use"):
        liftnn.pmap(fail, in_axes=(None, 0))(model, X)
    with pytest.raises(
        liftnn.SharedWriteError, match=r"args\[0\].w \(a Param\) is shared by all batch elements of this pmap"
    ):
        liftnn.pmap(lambda model, x: setattr(model.w, "value", x), in_axes=(None, 0))(model, X)
    assert_same(model, Affine())


def test_the_stages_on_arrays_are_those_of_jax():
    def f(x, n):
        return x * n, jax.lax.psum(x, "i")

    options = {"axis_name": "i", "static_broadcasted_argnums": 1}
    ours, theirs = liftnn.pmap(f, **options), jax.pmap(f, **options)
    lowered = ours.lower(X, 2), theirs.lower(X, 2)
    assert_same(lowered[0].compile()(X), lowered[1].compile()(X))
    assert lowered[0].as_text() == lowered[1].as_text()
    assert lowered[0].out_tree == lowered[1].out_tree


@pytest.mark.parametrize("f", [lambda x: x * 2, lambda x: Affine(2.0)(x)], ids=["arrays", "a module"])
def test_the_stages_that_only_jit_has_in_jax_describe_the_same_function(f):
    mapped, expected = liftnn.pmap(f), jax.pmap(f)(X)
    assert_same(mapped(X), expected)
    assert_same(mapped.trace(X).lower().compile()(X), expected)
    assert mapped.eval_shape(X) == jax.eval_shape(jax.pmap(f), X)
    assert liftnn.eval_shape(mapped, X) == mapped.eval_shape(X)
    assert mapped.n_traces == 1


def test_after_clear_cache_the_function_is_traced_again():
    traces = []

    def f(x):
        traces.append(x)
        return x * 2

    mapped = liftnn.pmap(f)
    for count in (1, 2, 3):
        assert_same(mapped(X), jax.pmap(lambda x: x * 2)(X))
        assert_same(mapped(X), X * 2)
        assert (len(traces), mapped.n_traces) == (count, count)
        mapped.clear_cache()


def test_a_function_in_the_place_of_jax_pmap_is_applied(monkeypatch):
    """As `chex.fake_pmap` replaces it, to test programs for many devices on one."""
    size = jax.local_device_count() + 3

    def fake(f, axis_name=None, *, in_axes=0, out_axes=0, **options):
        mapped = jax.vmap(f, in_axes, out_axes, axis_name)
        return lambda *args: mapped(*args)

    monkeypatch.setattr(jax, "pmap", fake)
    total = liftnn.pmap(lambda x: x + jax.lax.psum(x, "i"), axis_name="i")(jnp.arange(size))
    assert total.tolist() == [x + sum(range(size)) for x in range(size)]


def test_its_attributes_are_those_of_jit_but_for_the_size_of_the_cache():
    ours, theirs = liftnn.pmap(lambda x: x), jax.pmap(lambda x: x)
    assert all(hasattr(ours, name) for name in vars(theirs))
    assert not hasattr(ours, "_cache_size")
    assert not hasattr(theirs, "_cache_size")


@pytest.mark.parametrize(
    "options",
    [
        {"devices": []},
        {"static_broadcasted_argnums": "x"},
        {"donate_argnums": 1.5},
        {"in_axes": "x"},
        {"out_axes": 0.0},
    ],
    ids=str,
)
def test_wrong_options_are_refused_when_jax_refuses_them(options):
    theirs, ours = (caught(lambda of=of: of.pmap(lambda x: x, **options)) for of in (jax, liftnn))
    assert isinstance(ours, type(theirs))


def on_other_devices():
    """Places that are not the first four devices in their order."""

    def spread(devices, kind=jax.sharding.AxisType.Auto):
        mesh = jax.sharding.Mesh(devices, ("x",), axis_types=(kind,))
        return jax.sharding.NamedSharding(mesh, jax.P())

    return {
        "one": DEVICES[5],
        "the first": DEVICES[0],
        "others": spread(DEVICES[6:]),
        "more": spread(DEVICES),
        "another order": spread(DEVICES[3::-1]),
        "explicit axes": spread(DEVICES, jax.sharding.AxisType.Explicit),
        "the first with explicit axes": spread(DEVICES[:4], jax.sharding.AxisType.Explicit),
    }


def scale(model, x):
    model.calls.value = model.calls + 1
    model.b.value = model.b * 2
    return x * model.w + model.b


@pytest.mark.parametrize("place", on_other_devices().values(), ids=on_other_devices())
@pytest.mark.parametrize("donate", [(), (0,)], ids=["kept", "donated"])
def test_arguments_on_other_devices_are_moved_in_each_call_and_what_is_only_read_stays(place, donate):
    """Oracle: `vmap`. `jax.pmap` moves arrays that all devices share, too."""
    model, expected, x = Affine(2.0), Affine(2.0), X[:4]
    model.w.value = jax.device_put(model.w + 0, place)
    model.b.value = jax.device_put(model.b.value, DEVICES[5])
    before = model.w.value.sharding
    call = liftnn.pmap(scale, in_axes=(None, 0), devices=DEVICES[:4], donate_argnums=donate)
    for _ in range(3):
        y = call(model, x)
        assert_same((y, model), (liftnn.vmap(scale, in_axes=(None, 0))(expected, x), expected))
        assert shards(y).keys() == shards(model.b.value).keys() == {0, 1, 2, 3}
    assert call.n_traces <= 3  # JAX traces again for values on the mesh
    if not donate:
        assert model.w.value.sharding == before


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_on_another_device_are_moved_to_theirs(axis):
    values, x = jnp.arange(16.0).reshape(4, 4), jnp.arange(4.0)
    model = liftnn.Param(jax.device_put({"a": values, "b": values[..., None]}, DEVICES[5]))

    def total(v, x):
        return v["a"] * x + v["b"].sum()

    call = liftnn.pmap(total, in_axes=(axis, 0))
    expected = liftnn.vmap(total, in_axes=(axis, 0))(liftnn.Param({"a": values, "b": values[..., None]}), x)
    for _ in range(2):
        assert call(model, x).tolist() == expected.tolist()
    assert call.lower(model, x).out_info.shape == (4, 4)
    assert shards(model["a"]).keys() == {5}


def test_an_error_of_the_function_is_raised_though_arguments_are_elsewhere():
    def fail(model, x):
        model.w.value = model.w + 1
        raise ValueError("half way")

    model = Affine(2.0)
    model.w.value = jax.device_put(model.w.value, DEVICES[5])
    call = liftnn.pmap(fail, in_axes=(None, 0))
    for _ in range(2):
        with pytest.raises(ValueError, match="half way"):
            call(model, X)
    assert_same(model, Affine(2.0))
    assert shards(model.w.value).keys() == {5}


def test_a_captured_model_on_another_device_is_moved():
    model = Affine(2.0)
    liftnn.update(model, jax.device_put(liftnn.state(model), DEVICES[5]))
    call = liftnn.pmap(lambda x: x * model.w)
    for _ in range(3):
        assert call(X).tolist() == (X * 2).tolist()
    assert shards(model.w.value).keys() == {5}
