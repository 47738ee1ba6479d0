"""Hooks of Variables in an update of their Optimizer."""

from __future__ import annotations

import flax.nnx
import jax.numpy as jnp
import optax
import pytest

import liftnn


@pytest.mark.filterwarnings("ignore:Variable hooks are deprecated")
@pytest.mark.parametrize("library", [liftnn, flax.nnx], ids=["liftnn", "flax"])
def test_hooks_do_not_run_in_an_update(library):
    """Parameters are read without hooks, so they are written without."""

    class Halved(library.Param):
        def on_get_value(self, value):
            return 2 * value

        def on_set_value(self, value):
            return value / 2

    class Model(library.Module):
        def __init__(self):
            self.w = Halved(jnp.array(1.0))

    model = Model()
    optimizer = library.Optimizer(model, optax.sgd(0.25), wrt=library.Param)
    optimizer.update(model, library.grad(lambda m: m.w.get_value())(model))
    assert float(model.w.get_raw_value()) == 0.5
