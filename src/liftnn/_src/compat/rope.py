"""`RoPE` and `dot_product_attention_with_rope`, the rotary position embedding of Flax NNX 0.12.12."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.compat.modules import Module
from liftnn._src.nn.arguments import with_axes
from liftnn._src.nn.dot_product_attention import dot_product_attention
from liftnn._src.variables.variable import Variable


class RoPE(Module):
    """Rotary position embedding: rotate pairs of features by angles that grow with the position.

    Features `i` and `i + embedding_size / 2` are rotated by the angle `position / theta ** (2 * i / embedding_size)`.

    Args:
      theta: The base of the angles. The default is 10,000.
      embedding_size: The number of features, even, for tables of sines and cosines that are computed once. The
        default, None, computes them in each call.
      max_seq_len: The number of positions in the tables, given together with `embedding_size`.

    Raises:
      ArgumentError: If one of the two is given alone, or `embedding_size` is not positive and even.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> rope = nnx.RoPE(embedding_size=4, max_seq_len=8)
      >>> rope(jnp.ones((2, 8, 4))).shape
      (2, 8, 4)
    """

    def __init__(
        self, theta: float = 10000.0, embedding_size: int | None = None, max_seq_len: int | None = None
    ):
        if (embedding_size is None) != (max_seq_len is None):
            raise errors.ArgumentError(
                "RoPE got only one of embedding_size and max_seq_len.", "Pass both, or neither."
            )
        self.theta = theta
        self.cached_sin: Variable[jax.Array] | None = None
        self.cached_cos: Variable[jax.Array] | None = None
        if embedding_size is not None and max_seq_len is not None:
            sin, cos = self._rotation(embedding_size, jnp.arange(float(max_seq_len)))
            self.cached_sin, self.cached_cos = Variable(sin), Variable(cos)

    def __call__(self, x: jax.Array, input_positions: jax.Array | None = None) -> jax.Array:
        """Rotate features.

        Args:
          x: Array of shape `(*batch, length, embedding_size)`.
          input_positions: Positions, of shape `(length,)` or `(*batch, length)`. The default, None, means 0, 1, ...

        Returns:
          Array of the shape of `x`.

        Raises:
          ArgumentError: If the positions do not have the length of `x`, the number of features is not even, or there
            are more positions than in the tables.
        """
        sin, cos = self._find_rotation(x.shape[-2], x.shape[-1], input_positions)
        return _rotate(x, sin, cos)

    def _find_rotation(
        self, length: int, features: int, positions: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Return sines and cosines of shape `(*batch, length, features / 2)`."""
        if positions is None and self.cached_sin is not None and self.cached_cos is not None:
            if length > self.cached_sin.shape[0]:
                raise errors.ArgumentError(
                    f"RoPE has tables for {self.cached_sin.shape[0]} positions, but the input has {length}.",
                    "Create it with a larger max_seq_len, or without tables.",
                )
            return self.cached_sin.value[:length], self.cached_cos.value[:length]
        positions = jnp.arange(float(length)) if positions is None else positions
        if positions.shape[-1] != length:
            raise errors.ArgumentError(
                f"The input of RoPE has {length} positions, but input_positions has shape {positions.shape}.",
                "Pass input_positions with one entry for each position.",
            )
        return self._rotation(features, positions)

    def _rotation(self, features: int, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the sines and cosines of the angles of positions."""
        if features <= 0 or features % 2:
            raise errors.ArgumentError(
                f"RoPE rotates pairs of features, but embedding_size is {features}.", "Use an even number."
            )
        frequencies = 1.0 / (self.theta ** (jnp.arange(0.0, features, 2) / features))
        angles = positions[..., None] * with_axes(frequencies, positions.ndim + 1)
        return jnp.sin(angles), jnp.cos(angles)


def _rotate(x: jax.Array, sin: jax.Array, cos: jax.Array) -> jax.Array:
    """Rotate the two halves of the last axis against each other."""
    half = x.shape[-1] // 2
    turned = jnp.concatenate([-x[..., half:], x[..., :half]], axis=-1)
    cos, sin = (with_axes(jnp.concatenate([part, part], axis=-1), x.ndim) for part in (cos, sin))
    return x * cos + turned * sin


def dot_product_attention_with_rope(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    rope: RoPE,
    input_positions: jax.Array | None = None,
    **kwargs: Any,
) -> jax.Array:
    """Apply `dot_product_attention` to rotated queries and keys.

    Args:
      query: Array of shape `(*batch, query_length, heads, depth)`.
      key: Array of shape `(*batch, key_length, heads, depth)`.
      value: Array of shape `(*batch, key_length, heads, value_depth)`.
      rope: The rotary embedding.
      input_positions: The positions of queries and keys, of shape `(length,)` or `(*batch, length)`. The default,
        None, means 0, 1, ...
      **kwargs: Arguments of `dot_product_attention`.

    Returns:
      Array of shape `(*batch, query_length, heads, value_depth)`.

    Example:
      >>> import functools
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> attend = functools.partial(nnx.dot_product_attention_with_rope, rope=nnx.RoPE())
      >>> layer = nnx.MultiHeadAttention(2, 8, attention_fn=attend, decode=False, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((1, 3, 8))).shape
      (1, 3, 8)
    """

    def rotate(x: jax.Array) -> jax.Array:
        sin, cos = rope._find_rotation(x.shape[-3], x.shape[-1], input_positions)
        return _rotate(x, sin[..., None, :], cos[..., None, :])

    return dot_product_attention(rotate(query), rotate(key), value, **kwargs)
