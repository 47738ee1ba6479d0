"""`from_torch` and `to_torch` on random graphs of modules, with sharing and cycles: all weights, and nothing else."""

from __future__ import annotations

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np

import liftnn
from tests.strategies import build, recipes


def bits(x):
    """The bytes of an array, and its dtype and shape."""
    x = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return np.asarray(x).tobytes(), x.dtype, x.shape


def contents(model):
    """The bits of each Variable and array of a graph, by path."""
    flat = liftnn.state(model).flat()
    return {path: bits(x.raw_value if isinstance(x, liftnn.Variable) else x) for path, x in flat.items()}


def weights(model):
    """The Variables that are weights and hold no random keys."""
    flat = liftnn.state(model).flat()
    return {
        path: x
        for path, x in flat.items()
        if isinstance(x, liftnn.Variable)
        and not isinstance(x, liftnn.Intermediate)
        and not jnp.issubdtype(x.raw_value.dtype, jax.dtypes.prng_key)
    }


@hypothesis.given(recipes())
def test_the_weights_of_a_graph_are_those_of_another_one_after_both_functions(recipe):
    paths = weights(build(recipe))
    hypothesis.assume(
        paths or not liftnn.state(build(recipe)).flat()
    )  # a filter that matches nothing is an error
    model, other = build(recipe), build(recipe)
    for _, x in liftnn.iter_graph(other):
        if isinstance(x, liftnn.Variable) and not jnp.issubdtype(x.raw_value.dtype, jax.dtypes.prng_key):
            x.raw_value = jnp.zeros_like(x.raw_value)
    before = contents(other)

    def only(path, x):
        return path in paths

    written = liftnn.to_torch(model, only=only)
    assert not liftnn.from_torch(other, written, only=only)
    expected, after = contents(model), contents(other)
    for path in before:
        assert after[path] == (expected if path in paths else before)[path]
    again = liftnn.to_torch(other, only=only)
    assert {name: bits(x) for name, x in again.items()} == {name: bits(x) for name, x in written.items()}
