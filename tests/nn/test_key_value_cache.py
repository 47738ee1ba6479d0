"""Layers whose weights are stacked decode with stacked caches, as the same layers do one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn

ROWS, LENGTH, FEATURES = 2, 5, 8
X = jnp.sin(jnp.arange(float(ROWS * LENGTH * FEATURES))).reshape(ROWS, LENGTH, FEATURES)


def make(rngs: liftnn.Rngs) -> liftnn.MultiHeadAttention:
    return liftnn.MultiHeadAttention(2, FEATURES, rotary_embedding=liftnn.rotary_embedding, rngs=rngs)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_stack_decodes_like_the_list_of_its_layers():
    stack = liftnn.Stack(3, make, rngs=liftnn.Rngs(0))
    layers = stack.to_list()
    for layer in layers:
        layer.init_cache(X.shape)
    decoder = liftnn.view(stack, decode=True, batch_size=ROWS, max_length=LENGTH)
    for i in range(LENGTH):
        expected = X[:, i : i + 1]
        for layer in layers:
            expected = layer(expected, decode=True)
        close(decoder(X[:, i : i + 1]), expected)
    for i, layer in enumerate(layers):
        close(decoder[i].cached_key.value, layer.cached_key.value)
        assert decoder[i].cache_index.value == layer.cache_index.value == LENGTH


@pytest.mark.thorough
def test_a_view_that_decodes_is_made_inside_a_compiled_function():
    stack = liftnn.Stack(3, make, rngs=liftnn.Rngs(0))

    @liftnn.jit
    def decode(stack, x):
        decoder = liftnn.view(stack, decode=True, batch_size=ROWS, max_length=LENGTH)
        return jnp.concatenate([decoder(x[:, i : i + 1]) for i in range(LENGTH)], axis=1)

    expected = X
    for layer in stack.to_list():
        expected = layer(expected, is_causal=True)
    close(decode(stack, X), expected)
    assert not liftnn.state(stack, liftnn.Cache).flat()


@pytest.mark.thorough
def test_an_ensemble_decodes_like_each_of_its_models():
    keys = jax.random.split(jax.random.key(0), 4)
    ensemble = liftnn.vmap(lambda key: make(liftnn.Rngs(key)))(keys)
    ensemble.init_cache(X.shape)
    step = liftnn.vmap(lambda model, x: model(x, decode=True), in_axes=(0, None))
    actual = [step(ensemble, X[:, i : i + 1]) for i in range(LENGTH)]
    for number, key in enumerate(keys):
        expected = make(liftnn.Rngs(key))(X, is_causal=True)
        close(jnp.concatenate([x[number] for x in actual], axis=1), expected)
