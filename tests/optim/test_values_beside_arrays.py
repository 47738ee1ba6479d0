"""Variables whose values hold no arrays, or more than arrays, in an Optimizer and an EMA."""

from __future__ import annotations

import equinox
import jax
import jax.numpy as jnp
import optax
import pytest
from tests.raising import raises
from tests.strategies import Node

import liftnn
from liftnn import errors

ONLY_ARRAYS = (
    "Store only arrays in the Variable, and the rest in an attribute of the module. For a module of Equinox, "
    "`equinox.partition(x, equinox.is_inexact_array)` returns the two parts."
)


@pytest.mark.parametrize("tx", [optax.adam(0.1), optax.sgd(0.1)], ids=["adam", "sgd"])
def test_a_param_that_holds_more_than_arrays_is_an_error_by_path(tx):
    mlp = equinox.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
    with raises(
        errors.ArgumentTypeError,
        "mlp.value.activation is a custom_jvp, not an array, so an Optimizer cannot update it.\n"
        + ONLY_ARRAYS,
    ):
        liftnn.Optimizer(Node(w=liftnn.Param(jnp.ones(2)), mlp=liftnn.Param(mlp)), tx)


@pytest.mark.parametrize("value", ["sum", "float32", jnp.tanh], ids=["text", "dtype", "function"])
def test_a_param_that_holds_no_array_is_not_updated(value):
    model = Node(w=liftnn.Param(jnp.ones(2)), mode=liftnn.Param(value))
    optimizer = liftnn.Optimizer(model, optax.adam(0.1))
    optimizer.update(model, liftnn.grad(lambda model: (model.w**2).sum())(model))
    expected = Node(w=liftnn.Param(jnp.ones(2)))
    liftnn.Optimizer(expected, optax.adam(0.1)).update(expected, {"w": 2 * jnp.ones(2)})
    assert model.w.value.tolist() == expected.w.value.tolist()
    assert model.mode.value is value


@pytest.mark.parametrize("value", ["sum", "float32", jnp.tanh], ids=["text", "dtype", "function"])
def test_a_variable_that_holds_no_array_is_not_averaged(value):
    model = Node(w=liftnn.Param(jnp.ones(2)), mode=liftnn.Variable(value))
    ema = liftnn.EMA(model, 0.5)
    model.w.value = jnp.zeros(2)
    ema.update(model)
    assert ema.params.w.value.tolist() == [0.5, 0.5]
    assert ema.apply_to(model).mode is model.mode


def test_a_variable_that_holds_more_than_arrays_is_an_error_by_path():
    model = Node(w=liftnn.Param(jnp.ones(2)), b=liftnn.Param({"x": jnp.ones(2), "name": "bias"}))
    with raises(
        errors.ArgumentTypeError,
        f"b.value.name is a str, not an array, so an EMA cannot average it.\n{ONLY_ARRAYS}",
    ):
        liftnn.EMA(model, 0.5)
