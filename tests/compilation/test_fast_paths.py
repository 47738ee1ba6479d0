"""Warm plans are found by the identity of the modules, and never for other arguments."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.user_modules import Affine


def total(*args):
    """A sum over all arguments, whatever they are, so that a plan of other arguments gives another number."""
    leaves = jax.tree.leaves(args, is_leaf=lambda x: isinstance(x, (liftnn.Module, liftnn.Variable)))
    return sum(x.w.sum() * 100 if isinstance(x, Affine) else jnp.sum(jnp.asarray(x)) for x in leaves) + len(
        args
    )


ONE, OTHER, V = Affine(1.0), Affine(2.0), liftnn.Param(jnp.float32(7))
X = jnp.ones(2)
CALLS = [
    (ONE, X), (ONE, np.ones(2, np.float32)), (ONE, 3.0), (ONE, 3), (ONE, [X]), (ONE, {"x": X}), (ONE, None),
    (ONE,), (ONE, X, X), (X, ONE), (OTHER, X), (ONE, OTHER), (OTHER, ONE), (ONE, ONE), (ONE, V), (V, ONE), (V,),
    (X,), (X, X), ([X],), (), (None,), ([ONE], X), (ONE, True), (ONE, jax.random.key_data(jax.random.key(0))),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")
def test_calls_with_all_kinds_of_arguments_in_turn_give_what_plain_python_gives():
    call = liftnn.jit(total)
    rng = np.random.default_rng(0)
    order = [*range(len(CALLS)), *range(len(CALLS)), *rng.integers(0, len(CALLS), 150)]
    for i in order:
        assert float(call(*CALLS[i])) == float(total(*CALLS[i])), CALLS[i]
    traced = call.n_traces
    for i in rng.integers(0, len(CALLS), 50):
        call(*CALLS[i])
    assert call.n_traces == traced


def test_an_object_at_the_address_of_a_dead_module_does_not_get_its_plan():
    call, met = liftnn.jit(total), set()
    again = 0
    for i in range(50):
        model = Affine(float(i), size=1 + i % 2)
        again += id(model) in met
        met.add(id(model))
        assert float(call(model, X)) == float(total(model, X))
        del model
    assert again
    assert call._fast_paths.by_module == {}
    assert call._fast_paths.last() is None


def test_the_type_of_the_first_call_does_not_slow_down_the_others(monkeypatch):
    """Whoever comes twice in a row is found without flattening."""
    call, model = liftnn.jit(total), Affine()
    for x in (np.ones(2), X):
        call(model, x)
        call(model, x)
        call(model, x)
        monkeypatch.setattr(type(call), "_slow_call", None)
        call(model, x)
        monkeypatch.undo()


def test_functions_of_arrays_alone_are_found_too(monkeypatch):
    call = liftnn.jit(lambda x, y: x + y)
    call(X, X)
    monkeypatch.setattr(type(call), "_slow_call", None)
    assert call(X, X).tolist() == [2.0, 2.0]


def unseen(name):
    """A global of this file, in a way that no search for captured objects sees."""
    return vars(sys.modules[__name__])[name]


PASSED, INNER, OUTS = Affine(1.0), Affine(2.0), []


def test_a_callback_that_calls_the_running_program_maps_its_own_modules():
    """The inner call traces the program for a new shape, and first then uses the module that the outer call passes."""

    def host(x):
        if unseen("OUTS") == []:
            unseen("OUTS").append(call(unseen("INNER"), jnp.ones(3)))
        return np.asarray(x)

    @liftnn.jit
    def call(m, x):
        if x.size > 2:
            return unseen("PASSED").w * 10
        return m.w * jax.pure_callback(host, jax.typeof(m.w.value), m.w.value)

    OUTS.append("a call of the callback that calls nothing")
    call(INNER, jnp.ones(2)), call(INNER, jnp.ones(2))
    OUTS.clear()
    np.testing.assert_array_equal(call(PASSED, jnp.ones(2)), PASSED.w**2)
    np.testing.assert_array_equal(OUTS[0], PASSED.w * 10)
