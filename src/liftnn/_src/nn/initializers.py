"""Initializers `(key, shape, dtype) -> array` from `jax.nn.initializers`, with `zeros_init` and `ones_init`."""

from __future__ import annotations

from jax.nn.initializers import (
    Initializer,
    constant,
    delta_orthogonal,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    kaiming_normal,
    kaiming_uniform,
    lecun_normal,
    lecun_uniform,
    normal,
    ones,
    orthogonal,
    truncated_normal,
    uniform,
    variance_scaling,
    xavier_normal,
    xavier_uniform,
    zeros,
)

__all__ = [
    "Initializer",
    "constant",
    "delta_orthogonal",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "ones_init",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
    "zeros_init",
]

_JAX_FACTORIES = (
    constant,
    delta_orthogonal,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
    normal,
    orthogonal,
    truncated_normal,
    uniform,
    variance_scaling,
)


def zeros_init() -> Initializer:
    """Return the initializer `zeros`, by a call like other initializers.

    Returns:
      `zeros`.

    Example:
      >>> import jax
      >>> from liftnn.nn import initializers
      >>> initializers.zeros_init()(jax.random.key(0), (2,))
      Array([0., 0.], dtype=float32)
    """
    return zeros


def ones_init() -> Initializer:
    """Return the initializer `ones`, by a call like other initializers.

    Returns:
      `ones`.

    Example:
      >>> import jax
      >>> from liftnn.nn import initializers
      >>> initializers.ones_init()(jax.random.key(0), (2,))
      Array([1., 1.], dtype=float32)
    """
    return ones


FACTORIES = (*_JAX_FACTORIES, zeros_init, ones_init)
"""The functions that make initializers and are none themselves; `kaiming` and `xavier` are other names of some."""
