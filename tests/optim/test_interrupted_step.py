"""A step of an Optimizer is made as a whole or not at all, also if an exception comes in between."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from tests.alike import find_difference
from tests.interrupted import interruptions
from tests.strategies import Node

import liftnn


def test_an_interrupted_step_has_been_made_whole_or_not_at_all():
    pairs = []

    def make():
        model = Node(w=liftnn.Param(jnp.ones(2)), b=liftnn.Param(jnp.zeros(())))
        optimizer = liftnn.Optimizer(model, optax.adam(0.1))
        grads = liftnn.state(model)
        pairs.append((model, optimizer))
        return lambda: optimizer.update(model, grads)

    make()
    make()()
    old, new = pairs
    files = ("optim/optimizer.py", "optim/opt_state.py", "graph/undo.py")
    found = set()
    for at in interruptions(make, *files):
        is_old, is_new = (find_difference(pairs[-1], x) is None for x in (old, new))
        assert is_old or is_new, f"line event {at}"
        found.add(is_new)
    assert found == {False, True}
