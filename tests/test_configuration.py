"""JAX's configuration acts on `liftnn.jit` as on `jax.jit`, also when it changes between warm calls."""

from __future__ import annotations

import contextlib
import warnings

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.same import has_tracer
from tests.user_modules import Holder

CONTEXTS = {
    "x64": lambda: jax.enable_x64(True),
    "matmul precision": lambda: jax.default_matmul_precision("bfloat16"),
    "default device": lambda: jax.default_device(jax.devices()[1]),
    "dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "disable_jit": jax.disable_jit,
    "debug_nans": lambda: jax.debug_nans(True),
    "checking_leaks": jax.checking_leaks,
    "nothing": contextlib.nullcontext,
}


def step(w, x):
    """The new weights and an output, in which dtype, device and precision show."""
    made = jnp.arange(2) + jnp.zeros(2, jnp.int32)
    return w + 0.5, (jnp.matmul(w, x), made, jnp.asarray([1.0, 2.0]))


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("warm", [1, 3])
@pytest.mark.sample(18)
def test_what_a_call_gives_follows_the_configuration(context, warm):
    model, w, x = Holder(w=liftnn.Param(jnp.eye(2))), jnp.eye(2), jnp.full((2, 2), 1.2345678)
    theirs = jax.jit(lambda w, x: step(w, x))

    @liftnn.jit
    def ours(model, x):
        model.w.value, out = step(model.w.value, x)
        return out

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for ctx in (contextlib.nullcontext, context, contextlib.nullcontext, context):
            with ctx():
                for _ in range(warm):
                    out, (w, expected) = ours(model, x), theirs(w, x)
                    for a, b in zip((model.w.value, *out), (w, *expected), strict=True):
                        assert (a.tolist(), a.dtype, a.devices()) == (b.tolist(), b.dtype, b.devices())
    assert not has_tracer(model)


def test_a_setting_that_changes_the_program_traces_as_often_as_under_jax_jit():
    traced = {"ours": 0, "theirs": 0}

    def count(name, x):
        traced[name] += 1
        return x @ x

    model, x = Holder(w=liftnn.Param(jnp.eye(2))), jnp.eye(2)
    ours, theirs = liftnn.jit(lambda m: count("ours", m.w.value)), jax.jit(lambda w: count("theirs", w))
    for context in list(CONTEXTS.values()) * 2:
        if context is not jax.disable_jit and context is not jax.checking_leaks:
            with context():
                ours(model)
                theirs(x)
    assert traced["ours"] == traced["theirs"]


def test_debug_nans_in_a_fast_call_leaves_the_model_as_it_was():
    model = Holder(w=liftnn.Param(jnp.ones(2)))

    @liftnn.jit
    def divide(model, x):
        model.w.value = model.w / x
        return model.w.sum()

    for _ in range(3):
        divide(model, jnp.ones(2))
    before = model.w.value
    model.w.value = jnp.zeros(2)
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="invalid value"):
        divide(model, jnp.zeros(2))
    assert model.w.value.tolist() == [0.0, 0.0]
    model.w.value = before
    assert divide(model, jnp.ones(2)) == 2.0


def test_nothing_is_donated_if_debug_nans_is_set_before_the_first_call():
    model = Holder(w=liftnn.Param(jnp.ones(2)))
    log = liftnn.jit(lambda model, x: jnp.log(model.w * x), donate_argnums=0)
    with jax.debug_nans(True):
        log(model, 1.0)
        log(model, 2.0)
        with pytest.raises(FloatingPointError, match="invalid value"):
            log(model, -1.0)
    assert model.w.value.tolist() == [1.0, 1.0]


def test_disable_jit_runs_a_function_with_a_fast_path_in_python():
    model = Holder(w=liftnn.Param(jnp.float32(3)))
    seen = []

    @liftnn.jit
    def double(model):
        seen.append(isinstance(model.w.value, jax.core.Tracer))
        model.w.value = model.w * 2

    for _ in range(3):
        double(model)
    with jax.disable_jit():
        double(model)
        double(model)
    double(model)
    assert (seen, float(model.w.value)) == ([True, False, False], 3.0 * 2**6)
