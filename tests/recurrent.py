"""Recurrent cells and layers of liftnn and Flax NNX from the same seed, and exact comparison of what they compute."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import liftnn

CELLS = ("SimpleCell", "GRUCell", "LSTMCell", "OptimizedLSTMCell")


def numbers(*shape, dtype=jnp.float32, seed=7):
    """Normal numbers made by numpy."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32)).astype(dtype)


def draw(key, shape, dtype):
    """An initializer in any dtype, so that the bias shows too."""
    return 0.5 * jax.random.normal(key, shape, jnp.float32).astype(dtype)


def make_cell(library, name, **options):
    """A cell with 3 input and 4 hidden features from seed 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Flax warns of `keep_rngs` and `carry_init`
        return getattr(library, name)(3, 4, rngs=library.Rngs(0), **options)


def make_pair(name, **options):
    """The same cell from both libraries."""
    return make_cell(liftnn, name, **options), make_cell(nnx, name, **options)


def weights_of(library, module):
    """The arrays of all Params by path."""
    if library is nnx:
        return {tuple(path): x[...] for path, x in nnx.to_flat_state(nnx.state(module, nnx.Param))}
    return {path: x.value for path, x in liftnn.iter_graph(module) if isinstance(x, liftnn.Param)}


def assert_same(ours, theirs):
    """Same structure, shapes, dtypes and bits in every leaf."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_array_equal(np.asarray(a, np.float64), np.asarray(b, np.float64))


def gradients_of(library, module, run):
    """The gradients of a sum of squares of what `run` returns, in the Params of a module, by path."""

    def loss(module):
        return sum(jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(run(module)))

    if library is nnx:
        return {tuple(p): x[...] for p, x in nnx.to_flat_state(nnx.grad(loss)(module))}
    return {p: x.value for p, x in liftnn.grad(loss)(module).flat().items()}
