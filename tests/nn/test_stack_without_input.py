"""`Stack.apply` for functions of a layer alone: there is no value that goes through the layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import Carry, errors

N = 3


def make(**options):
    """A stack, and the list of the same layers."""
    stack = liftnn.Stack(N, lambda rngs: liftnn.Linear(2, 2, rngs=rngs), rngs=liftnn.Rngs(0), **options)
    return stack, stack.to_list()


def norm(layer, factor=1.0):
    return factor * jnp.abs(layer.kernel).sum()


@pytest.mark.parametrize(
    "options", [{}, {"remat": True}, {"unroll": True}, {"in_axes": (), "out_axes": 0}, {"in_axes": ()}]
)
@pytest.mark.parametrize("transform", [lambda f: f, liftnn.jit], ids=["eager", "jit"])
def test_the_results_of_all_layers_are_stacked(transform, options):
    stack, layers = make(**options)
    expected = [norm(layer, 2.0) for layer in layers]
    apply = transform(lambda stack: stack.apply(norm, factor=2.0))
    np.testing.assert_allclose(apply(stack), expected, rtol=1e-6)


def test_several_results_are_stacked_in_place_of_the_carry_and_along_their_own_axes():
    stack, layers = make(out_axes=(Carry, 1))
    first, second = stack.apply(lambda layer: (norm(layer), layer.kernel.value))
    np.testing.assert_allclose(first, [norm(layer) for layer in layers], rtol=1e-6)
    np.testing.assert_array_equal(second, jnp.stack([layer.kernel.value for layer in layers], axis=1))


def test_a_function_that_returns_nothing_writes_to_each_layer():
    stack, layers = make()

    def scale(layer, factor):
        layer.kernel.value *= factor

    assert stack.apply(scale, factor=jnp.float32(3)) is None
    expected = jnp.stack([3 * layer.kernel for layer in layers])
    np.testing.assert_allclose(stack.layers.kernel.value, expected, rtol=1e-6)


def test_a_method_without_arguments_is_applied():
    stack = liftnn.Stack(N, lambda rngs: liftnn.Dropout(0.5, rngs=rngs), rngs=liftnn.Rngs(0))
    assert stack.apply(liftnn.Dropout.eval) is stack.layers
    assert stack.layers.deterministic


def test_gradients_flow_through_the_stacked_results():
    stack, layers = make()
    grads = liftnn.grad(lambda stack: (stack.apply(norm) * jnp.arange(1.0, N + 1)).sum())(stack)
    expected = [
        jax.grad(lambda w, i=i: (i + 1) * jnp.abs(w).sum())(x.kernel.value) for i, x in enumerate(layers)
    ]
    np.testing.assert_allclose(grads["layers"]["kernel"].value, jnp.stack(expected), rtol=1e-6)


def test_an_input_passed_by_keyword_is_refused():
    stack, _ = make()
    with pytest.raises(errors.ArgumentError) as info:
        stack(inputs=jnp.ones((1, 2)))
    assert str(info.value) == (
        "A Stack replaces its first positional argument by the output of each layer, but the call has keyword "
        "arguments only, which all layers share.\n"
        "Pass the input by position: `stack(x)`."
    )
