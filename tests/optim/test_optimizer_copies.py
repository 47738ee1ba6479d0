"""Copies and pickles of an Optimizer continue as it does; equal ones share a trace."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import optax
import pytest
from tests.optim_models import (
    X,
    loss,
    make_model,
)

import liftnn


@pytest.mark.parametrize("copied", [copy.deepcopy, liftnn.clone])
def test_an_optimizer_is_copied(copied):
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    optimizer.update(model, liftnn.grad(loss)(model, X))
    other, new = copied((model, optimizer))
    for m, o in ((model, optimizer), (other, new)):
        o.update(m, liftnn.grad(loss)(m, X))
    np.testing.assert_array_equal(model.layers[0].w.value, other.layers[0].w.value)
    assert int(new.step) == int(optimizer.step) == 2


def test_the_state_of_an_optimizer_is_pickled_and_put_back():
    model = make_model()
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    optimizer.update(model, liftnn.grad(loss)(model, X))
    saved = pickle.loads(pickle.dumps(liftnn.state((model, optimizer))))
    other = make_model()
    new = liftnn.Optimizer(other, optax.adam(0.1))
    liftnn.update((other, new), saved)
    for m, o in ((model, optimizer), (other, new)):
        o.update(m, liftnn.grad(loss)(m, X))
    np.testing.assert_array_equal(model.layers[0].w.value, other.layers[0].w.value)


def test_a_fresh_equal_optimizer_causes_no_retrace():
    traces = []

    @liftnn.jit
    def step(model, optimizer, x):
        traces.append(1)
        optimizer.update(model, liftnn.grad(loss)(model, x))

    for _ in range(3):
        model = make_model()
        step(model, liftnn.Optimizer(model, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))), X)
    assert len(traces) == 1
