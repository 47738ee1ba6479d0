"""A compiled function that captures a module acts like the plain one whatever makes it trace again."""

from __future__ import annotations

import contextlib
import weakref

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.same import assert_same, has_tracer

pytestmark = pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning", "ignore::liftnn.CaptureWarning")


class Meter(liftnn.Module):
    """Counts its calls and adds up what it is given."""

    def __init__(self):
        self.w = liftnn.Param(jnp.float32(2.0))
        self.calls = liftnn.Variable(jnp.zeros((), jnp.int32))
        self.total = liftnn.Variable(jnp.float32(0.0))
        self.rngs = liftnn.Rngs(0)
        self.offset = jnp.ones(1)

    def __call__(self, *args, **kwargs):
        leaves = jax.tree.leaves((args, kwargs))
        self.calls.value = self.calls + 1
        total = sum((jnp.sum(jnp.asarray(x, jnp.float32)) for x in leaves), start=jnp.float32(0))
        self.total.value = self.total + total
        noise = jax.random.uniform(self.rngs())
        return [x * self.w.value.astype(jnp.result_type(x)) for x in leaves], total * noise, self.offset.sum()


def closure(model):
    return lambda *args, **kwargs: model(*args, **kwargs)


def through_a_list(model):
    models = [model]
    return lambda *args, **kwargs: models[0](*args, **kwargs)


def through_a_plain_object(model):
    class Trainer:
        def __init__(self):
            self.model = model

        def step(self, *args, **kwargs):
            return self.model(*args, **kwargs)

    return Trainer().step


def through_a_weak_reference(model):
    reference = weakref.ref(model)
    return lambda *args, **kwargs: reference()(*args, **kwargs)


def through_a_default(model):
    def f(*args, model=model, **kwargs):
        return model(*args, **kwargs)

    return lambda *args, **kwargs: f(*args, **kwargs)


def through_another_jit(model):
    return liftnn.jit(lambda *args, **kwargs: model(*args, **kwargs))


def not_found_beforehand(model):
    """What a generator holds is found when it is used."""

    def endless():
        held = model
        while True:
            yield held

    models = endless()
    return lambda *args, **kwargs: next(models)(*args, **kwargs)


CAPTURES = (
    closure,
    *[
        pytest.param(capture, marks=pytest.mark.thorough)
        for capture in (
            through_a_list,
            through_a_plain_object,
            through_a_weak_reference,
            through_a_default,
            through_another_jit,
        )
    ],
    not_found_beforehand,
)

X = np.ones(2, np.float32)
SEQUENCES = {
    "shapes": [((jnp.ones(2),), {}), ((jnp.ones(3),), {}), ((jnp.ones(2),), {}), ((jnp.ones((2, 2)),), {})],
    "dtypes": [
        ((jnp.ones(2),), {}),
        ((jnp.ones(2, jnp.int32),), {}),
        ((jnp.ones(2, jnp.bfloat16),), {}),
        ((jnp.ones(2),), {}),
    ],
    "weak types": [((1.0,), {}), ((jnp.ones(()),), {}), ((np.float32(1),), {}), ((1.0,), {}), ((2,), {})],
    "trees": [((X,), {}), (([X],), {}), (({"a": X},), {}), ((X, X), {}), (((X, [X]),), {}), ((X,), {})],
    "keywords": [
        ((X,), {}),
        ((X,), {"k": X}),
        ((), {"k": X}),
        ((X,), {"k": [X]}),
        ((X,), {"j": X}),
        ((), {}),
    ],
    "the last batch": [((jnp.ones((8, 2)),), {})] * 2 + [((jnp.ones((3, 2)),), {})],
}


def assert_acts_alike(capture, sequence, make=liftnn.jit, between=lambda f: None):
    model, plain = Meter(), Meter()
    f = make(capture(model))
    for args, kwargs in sequence:
        expected = plain(*args, **kwargs)
        assert_same((f(*args, **kwargs), model), (expected, plain))
        assert not has_tracer(model)
        between(f)


@pytest.mark.thorough
@pytest.mark.part(2)
@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.sample(16)
def test_a_retrace_acts_like_the_plain_call(capture, sequence):
    assert_acts_alike(capture, SEQUENCES[sequence])


@pytest.mark.sample(6)
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_arguments_in_turn_are_traced_once_each(sequence):
    model = Meter()
    f = liftnn.jit(lambda *args, **kwargs: model(*args, **kwargs))
    for _ in range(2):
        traced = f.n_traces
        for args, kwargs in SEQUENCES[sequence]:
            f(*args, **kwargs)
    assert f.n_traces == traced


OPTIONS = {
    "donate_argnums": {"donate_argnums": 0},
    "donate_written": {"donate_written": True},
    "in_shardings": {"in_shardings": None},
    "out_shardings": {"out_shardings": None},
    "inline": {"inline": True},
    "keep_unused": {"keep_unused": True},
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("capture", [closure, pytest.param(not_found_beforehand, marks=pytest.mark.thorough)])
@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_a_retrace_with_options_acts_like_the_plain_call(capture, options):
    sequence = [((jnp.ones(n),), {}) for n in (2, 3, 2)]
    plain_sequence = [((jnp.ones(n),), {}) for n in (2, 3, 2)]
    model, plain = Meter(), Meter()
    f = liftnn.jit(capture(model), **OPTIONS[options])
    for (args, kwargs), (plain_args, _) in zip(sequence, plain_sequence, strict=True):
        assert_same((f(*args, **kwargs), model), (plain(*plain_args), plain))
        assert not has_tracer(model)


@pytest.mark.thorough
def test_a_retrace_over_two_devices_acts_like_the_plain_call():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.NamedSharding(mesh, jax.P("x"))
    model, plain = Meter(), Meter()
    f = liftnn.jit(lambda x: model(x), in_shardings=rows)
    for n in (2, 4, 2):
        assert_same((f(jnp.ones(n)), model), (plain(jnp.ones(n)), plain))
        assert not has_tracer(model)


def test_a_second_shape_under_pmap_acts_like_the_plain_call():
    model, plain = Meter(), Meter()
    f = liftnn.pmap(lambda x: x * model.w + model.offset)
    for n in (2, 3, 2):
        x = jnp.ones((2, n))
        assert_same(f(x), x * plain.w + plain.offset)
        model.w.value = plain.w.value = model.w + 1
    assert not has_tracer(model)


CONTEXTS = {
    "matmul precision": lambda: jax.default_matmul_precision("highest"),
    "x64": lambda: jax.enable_x64(True),
    "debug nans": lambda: jax.debug_nans(True),
    "checking leaks": jax.checking_leaks,
    "device": lambda: jax.default_device(jax.devices()[1]),
    "rank promotion": lambda: jax.numpy_rank_promotion("warn"),
    "no jit": jax.disable_jit,
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("capture", [closure, pytest.param(not_found_beforehand, marks=pytest.mark.thorough)])
@pytest.mark.sample(9)
def test_a_retrace_for_another_configuration_acts_like_the_plain_call(capture, context):
    model, plain = Meter(), Meter()
    f = liftnn.jit(capture(model))
    for manager in (contextlib.nullcontext, CONTEXTS[context], contextlib.nullcontext, CONTEXTS[context]):
        with manager():
            assert_same((f(X), model), (plain(X), plain))
        assert not has_tracer(model)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "clear", [lambda f: jax.clear_caches(), lambda f: f.clear_cache()], ids=["JAX", "own"]
)
@pytest.mark.parametrize("capture", CAPTURES)
def test_a_call_after_a_cache_was_cleared_acts_like_the_plain_call(capture, clear):
    if capture is through_another_jit and clear.__code__.co_names[0] == "clear_cache":
        pytest.skip("the inner one has caches of its own")
    assert_acts_alike(capture, [((X,), {})] * 3, between=clear)


@pytest.mark.sample(4)
@pytest.mark.parametrize("capture", CAPTURES)
def test_an_error_in_a_retrace_changes_nothing_and_the_next_call_works(capture):
    model, plain = Meter(), Meter()
    inner = capture(model)

    def f(x):
        out = inner(x)
        if x.shape == (3,):
            raise KeyError("three")
        return out

    jitted = liftnn.jit(f)
    for n in (2, 3, 2, 3, 4):
        x = jnp.ones(n)
        if n == 3:
            with pytest.raises(KeyError, match="three"):
                jitted(x)
            assert_same(model, plain)
        else:
            assert_same((jitted(x), model), (plain(x), plain))
        assert not has_tracer(model)


HOLDERS = {
    "list": (list, lambda h, x: h.append(x)),
    "dict": (dict, lambda h, x: h.update(x=x)),
    "set": (set, lambda h, x: h.add(x.shape)),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_container_of_a_captured_module_changed_in_a_retrace_is_as_before(holder):
    make, change = HOLDERS[holder]
    model = Meter()
    model.kept = make()

    @liftnn.jit
    def f(x):
        if x.shape == (3,):
            change(model.kept, x)
        return x * model.w

    f(jnp.ones(2))
    for _ in range(2):
        with pytest.raises(liftnn.TraceContextError):
            f(jnp.ones(3))
        assert model.kept == make()
    assert f(jnp.ones(2)).tolist() == [2.0, 2.0]
