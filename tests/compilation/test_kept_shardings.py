"""What a compiled step writes keeps the sharding that its Variable came in with; the oracle is where JAX put it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import liftnn

AUTO = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
EXPLICIT = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
SPECS = {
    "both axes": P("data", "model"),
    "one axis": P(None, "model"),
    "two mesh axes on one": P(("data", "model")),
    "replicated": P(),
}


def spread(spec, shape=(8, 16), mesh=AUTO):
    return jax.device_put(jnp.arange(float(np.prod(shape))).reshape(shape) / 100, NamedSharding(mesh, spec))


def shardings(*modules):
    flat = liftnn.state(modules).flat()
    return {path: x.value.sharding for path, x in flat.items()}


class Model(liftnn.Module):
    def __init__(self, spec, mesh=AUTO):
        self.w = liftnn.Param(spread(spec, mesh=mesh))
        self.b = liftnn.Param(spread(P(), (16,), mesh=mesh))
        self.calls = liftnn.Variable(spread(P(), (), mesh=mesh))

    def __call__(self, x):
        self.calls += 1
        return jnp.tanh(x @ self.w + self.b)


def train(model, optimizer, x):
    optimizer.update(model, liftnn.grad(lambda model: (model(x) ** 2).mean())(model))


def batch():
    return jax.device_put(jnp.ones((8, 8)), NamedSharding(AUTO, P("data")))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("donate", [(), (0, 1)], ids=["kept", "donated"])
@pytest.mark.sample(9)
def test_a_train_step_leaves_all_shardings_and_is_compiled_once(spec, donate):
    model = Model(spec)
    optimizer = liftnn.jit(lambda model: liftnn.Optimizer(model, optax.adamw(1e-2)))(model)
    step = liftnn.jit(lambda *args: train(*args), donate_argnums=donate)
    step(model, optimizer, batch())
    before = shardings(model, optimizer)
    assert shardings(model)[0, "w"] == NamedSharding(AUTO, spec)
    for _ in range(3):
        step(model, optimizer, batch())
    assert shardings(model, optimizer) == before
    assert step._cache_size() == 1


def test_the_numbers_are_those_of_one_device():
    model, alone = Model(P("data", "model")), Model(P("data", "model"))
    liftnn.update(alone, jax.device_put(liftnn.state(alone), jax.devices()[0]))
    for each, x in ((model, batch()), (alone, jnp.ones((8, 8)))):
        optimizer = liftnn.Optimizer(each, optax.adam(1e-2))
        step = liftnn.jit(train)
        for _ in range(3):
            step(each, optimizer, x)
    for path, x in liftnn.state(model).flat().items():
        np.testing.assert_allclose(x.value, liftnn.state(alone).flat()[path].value, rtol=1e-5, atol=1e-6)


def mix(model):
    """XLA would shard the sum like the first operand."""
    model.b.value = model.b + model.w.sum(0)


def test_a_captured_model_keeps_its_shardings_too():
    model = Model(P(None, "model"))
    step = liftnn.jit(lambda: mix(model))
    for _ in range(2):
        step()
        assert model.b.value.sharding == NamedSharding(AUTO, P())


def test_bare_jax_moves_what_this_keeps():
    w, b = spread(P(None, "model")), spread(P(), (16,))
    moved = jax.jit(lambda w, b: b + w.sum(0))(w, b)
    assert moved.sharding != b.sharding


@pytest.mark.parametrize("nested", [liftnn.jit, liftnn.remat], ids=["jit", "remat"])
def test_it_holds_for_nested_transforms_and_a_method(nested):
    class WithStep(Model):
        @liftnn.jit
        def step(self):
            nested(mix)(self)

    model = WithStep(P(None, "model"))
    for _ in range(2):
        model.step()
    assert model.b.value.sharding == NamedSharding(AUTO, P())


def move(model, how):
    new = jax.device_put(model.b.value, NamedSharding(AUTO, P("data")))
    if how == "value":
        model.b.value = new
    elif how == "raw_value":
        model.b.raw_value = new
    elif how == "update":
        liftnn.update(model, {"b": new})
    elif how == "view":
        liftnn.view(model).b.value = new
    elif how == "copy_from":
        model.b.copy_from(liftnn.Param(new))
    elif how == "another Variable":
        model.b = liftnn.Param(new)
    elif how == "in place":
        model.b[...] = new


MOVES = ["value", "raw_value", "update", "view", "copy_from", "another Variable"]


@pytest.mark.parametrize("how", MOVES)
def test_a_value_that_the_user_moves_stays_where_it_was_moved(how):
    model, step = Model(P(None, "model")), liftnn.jit(mix)
    for _ in range(3):
        step(model)
    assert model.b.value.sharding == NamedSharding(AUTO, P())
    move(model, how)
    for _ in range(3):
        step(model)
        assert model.b.value.sharding == NamedSharding(AUTO, P("data"))


@pytest.mark.parametrize("how", MOVES)
def test_a_model_of_one_device_that_is_spread_later_keeps_the_new_sharding(how):
    model, step = Model(P(None, "model")), liftnn.jit(mix)
    liftnn.update(model, jax.device_put(liftnn.state(model), jax.devices()[0]))
    for _ in range(3):
        step(model)
    model.w.value = spread(P(None, "model"))
    move(model, how)
    for _ in range(3):
        step(model)
        assert model.b.value.sharding == NamedSharding(AUTO, P("data"))


def test_two_models_with_other_shardings_share_a_function():
    step, models = liftnn.jit(mix), [Model(P(None, "model")), Model(P("data"))]
    models[1].b.value = spread(P("data"), (16,))
    for _ in range(3):
        for model in models:
            step(model)
    assert [m.b.value.sharding.spec for m in models] == [P(), P("data")]


def test_a_new_value_of_no_chosen_device_takes_the_sharding_without_a_trace():
    model, step = Model(P(None, "model")), liftnn.jit(mix)
    for _ in range(3):
        step(model)
    for _ in range(3):
        model.w.value = jnp.ones((8, 16))
        step(model)
        assert model.w.value.sharding == NamedSharding(AUTO, P(None, "model"))
        assert model.b.value.sharding == NamedSharding(AUTO, P())
    assert step._cache_size() == 1


def test_a_value_of_no_chosen_device_is_replicated_beside_the_others():
    model, step = Model(P(None, "model")), liftnn.jit(mix)
    model.b.value, model.calls.value = jnp.zeros(16), jnp.zeros(())
    for _ in range(3):
        step(model)
        assert shardings(model)[0, "b"] == shardings(model)[0, "calls"] == NamedSharding(AUTO, P())
    assert step._cache_size() == 1


def test_explicit_axes_are_left_to_jax():
    model, w = Model(P(None, "model"), EXPLICIT), spread(P(None, "model"), mesh=EXPLICIT)
    with jax.set_mesh(EXPLICIT):
        liftnn.jit(lambda model: setattr(model.b, "value", model.w.sum(0)))(model)
        expected = jax.jit(lambda w: w.sum(0))(w)
    assert model.b.value.sharding == expected.sharding


def test_a_value_of_another_shape_or_kind_is_written_as_it_is():
    model = Model(P(None, "model"))

    def change(model):
        model.w.value = model.w[:3]
        model.b.value = {"a": model.b.value, "b": jnp.zeros(0)}
        model.calls.value = liftnn.Empty

    liftnn.jit(change)(model)
    assert model.w.shape == (3, 16)
    assert model.b.value["a"].shape == (16,)
    assert model.calls.value is liftnn.Empty


def test_zero_size_values_and_an_empty_module():
    model = Model(P(None, "model"))
    model.none, model.inner = liftnn.Param(spread(P("data"), (0, 4))), liftnn.Module()
    step = liftnn.jit(lambda model: [mix(model), setattr(model.none, "value", model.none * 2)][0])
    for _ in range(2):
        step(model)
    assert model.none.value.sharding.spec in (P("data"), P())
    assert model.none.shape == (0, 4)


def test_a_failed_call_moves_nothing():
    model = Model(P(None, "model"))

    def fail(model):
        mix(model)
        raise KeyError("late")

    before = shardings(model)
    with pytest.raises(KeyError, match="late"):
        liftnn.jit(fail)(model)
    assert shardings(model) == before


def test_ties_and_cycles_keep_their_sharding():
    model = Model(P(None, "model"))
    model.tied, model.me = model.b, model
    step = liftnn.jit(mix)
    for _ in range(2):
        step(model)
    assert model.tied is model.b
    assert model.b.value.sharding == NamedSharding(AUTO, P())


def test_stages_compile_with_the_shardings_of_abstract_models():
    model, step = Model(P(None, "model")), liftnn.jit(mix)
    abstract = liftnn.eval_shape(lambda: Model(P(None, "model")))
    for name in ("w", "b", "calls"):
        x = getattr(model, name).value
        getattr(abstract, name).value = jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    compiled = step.lower(abstract).compile()
    for _ in range(2):
        compiled(model)
    assert model.b.value.sharding == NamedSharding(AUTO, P())


def test_a_compiled_stage_names_a_variable_that_has_moved():
    model = Model(P(None, "model"))
    compiled = liftnn.jit(mix).lower(model).compile()
    model.b.value = spread(P("data"), (16,))
    with pytest.raises(ValueError, match=r"args\[0\]\.b"):
        compiled(model)


def test_threads_with_models_of_other_shardings():
    """No device needs data of another one: programs that do may block each other, also those of bare JAX."""
    step, errors = liftnn.jit(mix), []

    def run(axis):
        try:
            model = Model(P(None, axis))
            model.b.value = spread(P(axis), (16,))
            for _ in range(20):
                step(model)
            assert model.b.value.sharding.spec == P(axis)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(axis,)) for axis in ("data", "model") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_in_shardings_place_what_is_only_read():
    model = liftnn.Linear(16, 32, rngs=liftnn.Rngs(0))
    rows = NamedSharding(AUTO, P("data"))
    place = liftnn.StateSharding({liftnn.PathContains("kernel"): rows, ...: None})
    call, before = liftnn.jit(lambda model: None, in_shardings=(place,)), np.asarray(model.kernel.value)
    for _ in range(2):
        call(model)
        assert model.kernel.value.sharding == rows
        model.kernel.value = jnp.asarray(before)
    call(model)
    assert model.kernel.value.sharding == rows
    np.testing.assert_array_equal(model.kernel.value, before)


def test_in_shardings_leave_a_model_where_it_is_if_the_call_fails():
    model = liftnn.Linear(16, 32, rngs=liftnn.Rngs(0))

    def fail(model):
        raise KeyError("late")

    with pytest.raises(KeyError, match="late"):
        liftnn.jit(fail, in_shardings=(NamedSharding(AUTO, P("data")),))(model)
    assert len(model.kernel.value.sharding.device_set) == 1


@pytest.mark.thorough
def test_on_one_device_nothing_is_noted():
    program = """
        import jax, jax.numpy as jnp, liftnn
        from liftnn._src.variables.storage import moves
        model = liftnn.Linear(2, 2, rngs=liftnn.Rngs(0))
        step = liftnn.jit(lambda model: setattr(model.bias, "value", model.bias + 1))
        for _ in range(3): step(model)
        model.bias.value = jnp.ones(2)
        step(model)
        assert (moves.are_noted, moves.count) == (False, 0)
        assert jax.device_count() == 1
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, env={"PATH": "", "PYTHONPATH": ":".join(sys.path), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_donated_step_that_fails_shows_its_cause():
    def boom(x):
        raise RuntimeError("device died")

    def step(model):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        model.calls.value += jax.pure_callback(boom, shape, model.calls.value)

    model = Model(P())
    liftnn.update(model, jax.device_put(liftnn.state(model), jax.devices()[0]))

    def run():
        jax.block_until_ready(liftnn.jit(step, donate_argnums=0)(model))
        model.calls.value.block_until_ready()

    with pytest.raises(Exception, match="device died"):
        run()


@pytest.mark.thorough
def test_an_exported_step_leaves_all_shardings():
    def make():
        model = liftnn.Linear(32, 32, kernel_metadata={"sharding": ("data", "model")}, rngs=liftnn.Rngs(0))
        return model, liftnn.Optimizer(model, optax.adam(1e-2))

    x = jax.device_put(jnp.ones((8, 32)), NamedSharding(AUTO, P("data")))
    held, plain = liftnn.make_sharded(make, AUTO), liftnn.make_sharded(make, AUTO)
    before = shardings(*held)
    exported = liftnn.export(liftnn.jit(train))(*held, x)
    for _ in range(2):
        exported.call(*held, x)
        liftnn.jit(train)(*plain, x)
    assert shardings(*held) == before
    np.testing.assert_allclose(held[0].kernel.value, plain[0].kernel.value, rtol=1e-5)
