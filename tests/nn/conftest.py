"""Flax NNX as the oracle of the layers: same arguments and seed, so same weights, outputs and gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn

WEIGHTS = ("kernel", "bias", "scale", "embedding", "negative_slope")
TOLERANCE = {jnp.dtype(jnp.float32): 2e-6, jnp.dtype(jnp.bfloat16): 2e-2, jnp.dtype(jnp.float16): 2e-3}


def weights_of(layer):
    """The arrays of a layer's weights by name; what it does without is left out."""
    found = {name: getattr(layer, name, None) for name in WEIGHTS}
    return {name: weight[...] for name, weight in found.items() if weight is not None}


def assert_close(ours, theirs):
    """Same shape and dtype, and values as close as the dtype allows, relative to the largest."""
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    ours, theirs, tolerance = (
        np.asarray(ours, np.float64),
        np.asarray(theirs, np.float64),
        TOLERANCE[ours.dtype],
    )
    np.testing.assert_allclose(
        ours, theirs, rtol=tolerance, atol=tolerance * max(1.0, np.abs(theirs).max(initial=0))
    )


def assert_identical(ours, theirs):
    """Same shape, dtype and bits."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    np.testing.assert_array_equal(ours.astype(np.float64), theirs.astype(np.float64))
    assert ours.tobytes() == theirs.tobytes()


def make_pair(name, *args, **kwargs):
    """The layer of that name from both libraries, drawn from the same seed."""
    ours = getattr(liftnn, name)(*args, rngs=liftnn.Rngs(0), **kwargs)
    theirs = getattr(nnx, name)(*args, rngs=nnx.Rngs(0), **kwargs)
    return ours, theirs


def numbers(shape, dtype=jnp.float32):
    """Normal numbers made by numpy, which compiles nothing; the same shape gives the same ones."""
    return jnp.asarray(np.random.default_rng(7).normal(size=shape).astype(np.float32)).astype(dtype)


def pull_back(cls, rngs, args, kwargs, weights, x, call):
    """The gradients of the output in weights and input, for some cotangent."""

    def run(weights, x):
        layer = cls(*args, rngs=rngs(0), **kwargs)
        for name, value in weights.items():
            getattr(layer, name)[...] = value
        return layer(x, **call)

    y, pull = jax.vjp(run, weights, x)
    return pull(numbers(y.shape, y.dtype))


@pytest.fixture
def agrees_with_flax():
    """Checks one layer against Flax: initial weights, output and, if asked, gradients; returns both layers."""

    def check(name, *args, x, call=None, grad=False, **kwargs):
        call = call or {}
        ours, theirs = make_pair(name, *args, **kwargs)
        weights = weights_of(theirs)
        assert set(weights_of(ours)) == set(weights)
        for key, weight in weights.items():
            np.testing.assert_array_equal(weights_of(ours)[key], weight)
            assert weights_of(ours)[key].dtype == weight.dtype
        assert_close(ours(x, **call), theirs(x, **call))
        if grad:
            mine = pull_back(getattr(liftnn, name), liftnn.Rngs, args, kwargs, weights, x, call)
            flax = pull_back(getattr(nnx, name), nnx.Rngs, args, kwargs, weights, x, call)
            jax.tree.map(assert_close, mine, flax)
        return ours, theirs

    return check


@pytest.fixture
def close():
    """`assert_close`."""
    return assert_close


@pytest.fixture
def identical():
    """`assert_identical`."""
    return assert_identical


@pytest.fixture
def rand():
    """A function `(*shape, dtype) -> array` of normal numbers; the same shape gives the same ones."""
    return lambda *shape, dtype=jnp.float32: numbers(shape, dtype)


@pytest.fixture
def drawn():
    """Options that fill kernel and bias with normal numbers, so that a mistake in either shows."""

    def init(key, shape, dtype):
        return 0.5 * numbers(shape, dtype)

    return {"kernel_init": init, "bias_init": init}


@pytest.fixture
def drawn_norm(drawn):
    """The same for scale and bias."""
    return {"scale_init": drawn["kernel_init"], "bias_init": drawn["bias_init"]}
