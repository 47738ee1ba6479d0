"""Helpers of the tests of the bridge to Linen: the same program with the stand-in and with Flax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx as flax_nnx

from liftnn.compat import nnx

X = jnp.arange(8.0).reshape(2, 4) / 7


def pair(program):
    """The results of a program with the stand-in and with Flax."""
    return program(nnx), program(flax_nnx)


def same(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), ours, theirs)
