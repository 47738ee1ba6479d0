"""Orthogonal initializers of recurrent kernels, also for dtypes of half precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liftnn._src.nn import initializers
from liftnn._src.nn.arguments import without_none

_draw = initializers.orthogonal()


def orthogonal(
    key: jax.Array, shape: Sequence[Any], dtype: Any = None, out_sharding: Any = None
) -> jax.Array:
    """Draw an orthogonal matrix; in float32 if the dtype has half precision, which JAX cannot orthogonalize.

    Args:
      key: The random key.
      shape: Shape of the matrix, with two axes or more.
      dtype: Dtype of the matrix. The default, None, is float32, or float64 if x64 is enabled.
      out_sharding: Sharding of the matrix. The default, None, leaves it to JAX.

    Returns:
      The matrix.
    """
    dtype = jnp.result_type(float if dtype is None else dtype)
    drawn = jnp.promote_types(dtype, jnp.float32)
    return _draw(key, shape, drawn, **without_none(out_sharding=out_sharding)).astype(dtype)


def orthogonal_then_cast(
    key: jax.Array, shape: Sequence[Any], dtype: Any = None, out_sharding: Any = None
) -> jax.Array:
    """Draw an orthogonal matrix in JAX's default dtype, and cast it: the weights that Flax gives an `LSTMCell`.

    If x64 is enabled, the numbers differ from those that `orthogonal` draws in float32.

    Args:
      key: The random key.
      shape: Shape of the matrix, with two axes or more.
      dtype: Dtype of the matrix. The default, None, is float32, or float64 if x64 is enabled.
      out_sharding: Sharding of the matrix. The default, None, leaves it to JAX.

    Returns:
      The matrix.
    """
    drawn = _draw(key, shape, **without_none(out_sharding=out_sharding))
    return drawn if dtype is None else drawn.astype(dtype)
