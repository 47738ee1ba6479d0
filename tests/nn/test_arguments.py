"""What is passed to a layer in place of a function or of another layer: a name, a number or a class."""

from __future__ import annotations

import inspect

import jax.numpy as jnp
import pytest
from tests.raising import raises

import liftnn

RNGS = liftnn.Rngs(0)
LAYERS = {
    "Linear": lambda **o: liftnn.Linear(4, 3, rngs=RNGS, **o),
    "LinearGeneral": lambda **o: liftnn.LinearGeneral(4, 3, rngs=RNGS, **o),
    "Einsum": lambda **o: liftnn.Einsum("ab,bc->ac", (4, 3), (3,), rngs=RNGS, **o),
    "Conv": lambda **o: liftnn.Conv(4, 3, (3,), rngs=RNGS, **o),
    "ConvTranspose": lambda **o: liftnn.ConvTranspose(4, 3, (3,), rngs=RNGS, **o),
    "Embed": lambda **o: liftnn.Embed(4, 3, rngs=RNGS, **o),
    "BatchNorm": lambda **o: liftnn.BatchNorm(4, rngs=RNGS, **o),
    "LayerNorm": lambda **o: liftnn.LayerNorm(4, rngs=RNGS, **o),
    "RMSNorm": lambda **o: liftnn.RMSNorm(4, rngs=RNGS, **o),
    "GroupNorm": lambda **o: liftnn.GroupNorm(4, num_groups=2, rngs=RNGS, **o),
    "InstanceNorm": lambda **o: liftnn.InstanceNorm(4, rngs=RNGS, **o),
    "MultiHeadAttention": lambda **o: liftnn.MultiHeadAttention(2, 4, rngs=RNGS, **o),
    "SimpleCell": lambda **o: liftnn.SimpleCell(3, 4, rngs=RNGS, **o),
    "GRUCell": lambda **o: liftnn.GRUCell(3, 4, rngs=RNGS, **o),
    "LSTMCell": lambda **o: liftnn.LSTMCell(3, 4, rngs=RNGS, **o),
    "OptimizedLSTMCell": lambda **o: liftnn.OptimizedLSTMCell(3, 4, rngs=RNGS, **o),
    "LoRALinear": lambda **o: liftnn.LoRALinear(4, 3, lora_rank=2, rngs=RNGS, **o),
}


def parameters_of(suffix):
    """Every parameter of a layer whose name ends so, except those that have no effect on their own."""
    for name in LAYERS:
        for parameter in inspect.signature(getattr(liftnn, name)).parameters:
            if parameter.endswith(suffix) and parameter not in (
                "carry_init",
                "out_kernel_init",
                "out_bias_init",
            ):
                yield name, parameter


@pytest.mark.parametrize("value, words", [("zeros", "a str: 'zeros'"), (0.5, "a float: 0.5")])
@pytest.mark.parametrize("name, parameter", list(parameters_of("_init")))
def test_an_initializer_that_is_no_function_is_an_error(name, parameter, value, words):
    with raises(
        liftnn.ArgumentTypeError,
        f"An initializer must be a function `(key, shape, dtype) -> array`, not {words}.\n"
        "Pass one of `liftnn.initializers`, such as `zeros_init()` or `constant(0.5)`.",
    ):
        LAYERS[name](**{parameter: value})


@pytest.mark.parametrize("name, parameter", list(parameters_of("_init")))
def test_a_function_that_makes_initializers_is_an_error(name, parameter):
    with raises(
        liftnn.ArgumentError,
        "lecun_normal makes an initializer; it is not one itself.\n"
        "Call it: `lecun_normal()` in place of `lecun_normal`.",
    ):
        LAYERS[name](**{parameter: liftnn.initializers.lecun_normal})


FUNCTIONS = [(name, parameter) for name, parameter in parameters_of("_fn") if name.endswith("Cell")]


@pytest.mark.parametrize("name, parameter", FUNCTIONS)
def test_the_name_of_an_activation_is_an_error(name, parameter):
    with raises(
        liftnn.ArgumentTypeError,
        f"{parameter} of {name} must be a function, not a str: 'tanh'.\n"
        "Pass a function of arrays, such as `liftnn.tanh`.",
    ):
        LAYERS[name](**{parameter: "tanh"})


WRAPPERS = {
    "RNN": (
        lambda cls: liftnn.RNN(cls),
        liftnn.LSTMCell,
        "RNN applies a recurrent cell, but cell is",
        "cell",
    ),
    "Bidirectional": (
        lambda cls: liftnn.Bidirectional(cls, cls),
        liftnn.RNN,
        "Bidirectional applies recurrent layers, but forward_rnn is",
        "layer",
    ),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_class_in_place_of_a_layer_is_an_error(name):
    wrap, cls, words, what = WRAPPERS[name]
    with raises(
        liftnn.ArgumentError,
        f"{words} the class {cls.__name__}.\n"
        f"Create the {what}: `{cls.__name__}(...)` in place of `{cls.__name__}`.",
    ):
        wrap(cls)


def test_initializers_and_functions_of_every_kind_are_accepted():
    class Scaled:
        def __call__(self, key, shape, dtype):
            return jnp.ones(shape, dtype)

    layer = liftnn.Linear(4, 3, kernel_init=Scaled(), bias_init=lambda *a: jnp.zeros(a[1]), rngs=RNGS)
    assert float(layer(jnp.ones(4))[0]) == 4.0
    cell = liftnn.GRUCell(3, 4, activation_fn=jnp.tanh, gate_fn=liftnn.Sequential(jnp.tanh), rngs=RNGS)
    assert cell(jnp.zeros(4), jnp.ones(3))[0].shape == (4,)
