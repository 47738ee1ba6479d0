"""Rotary position embedding: rotate pairs of features by angles that grow with the position."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from liftnn import errors
from liftnn._src.nn.arguments import with_axes
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary


@boundary
def rotary_embedding(
    x: jax.Array, positions: ArrayLike | None = None, *, base: float = 10_000.0, interleaved: bool = False
) -> jax.Array:
    """Rotate pairs of features of queries or keys by angles that grow with the position.

    Pair `i` of `depth / 2` is rotated by the angle `position * base ** (-2 * i / depth)`. The product of a query and a
    key then depends on their positions only by the difference. `MultiHeadAttention` rotates its queries and keys if
    this function is its argument `rotary_embedding`.

    Args:
      x: Array of shape `(*batch, length, heads, depth)` with an even depth.
      positions: Array that broadcasts to `(*batch, length)`. The default, None, means 0, 1, ..., length - 1.
      base: The base of the angles; a larger one suits longer sequences. 10,000 by default.
      interleaved: Whether pair `i` consists of the features `2 * i` and `2 * i + 1`, as in the paper. With the default,
        False, it consists of the features `i` and `i + depth / 2`, as in GPT-NeoX, Llama and Gemma.

    Returns:
      Array of the shape and dtype of `x`. The angles are computed in float32.

    Raises:
      ArgumentError: If `x` does not have three axes or more, an even depth and a floating point dtype, or if
        `positions` does not broadcast to `(*batch, length)`.

    Example:
      >>> import functools
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> x = jnp.array([[[1.0, 0.0]], [[1.0, 0.0]]])
      >>> bool(jnp.allclose(liftnn.rotary_embedding(x)[1, 0], jnp.array([jnp.cos(1.0), jnp.sin(1.0)])))
      True
      >>> rotary = functools.partial(liftnn.rotary_embedding, base=500_000.0)
      >>> layer = liftnn.MultiHeadAttention(2, 8, rotary_embedding=rotary, rngs=liftnn.Rngs(0))

    References:
      Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, https://arxiv.org/abs/2104.09864
    """
    x = jnp.asarray(x)
    _check_input(x)
    half = x.shape[-1] // 2
    steps = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    positions = with_axes(_checked_positions(positions, x.shape), x.ndim - 2)
    angles = positions[..., None, None] * with_axes(steps, x.ndim)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if interleaved:
        first, second = x[..., 0::2], x[..., 1::2]
    else:
        first, second = x[..., :half], x[..., half:]
    rotated = (first * cos - second * sin, first * sin + second * cos)
    y = jnp.stack(rotated, axis=-1).reshape(x.shape) if interleaved else jnp.concatenate(rotated, axis=-1)
    return y.astype(x.dtype)


def _check_input(x: jax.Array) -> None:
    """Raise ArgumentError if the features of `x` cannot be rotated in pairs."""
    if x.ndim < 3 or x.shape[-1] % 2 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise errors.ArgumentError(
            f"rotary_embedding rotates pairs of features of a floating point array of shape (*batch, length, heads, "
            f"depth), but its input has shape {x.shape} and dtype {x.dtype.name}.",
            "Pass an array with these axes and an even depth; add an axis of one head with x[..., None, :].",
        )


def _checked_positions(positions: ArrayLike | None, shape: tuple[int, ...]) -> jax.Array:
    """Return the positions in float32; raise ArgumentError if they do not fit an input of this shape."""
    wanted = shape[:-2]
    if positions is None:
        return jnp.arange(wanted[-1], dtype=jnp.float32)
    found = jnp.shape(positions)
    if len(found) > len(wanted) or any(
        size not in (1, n) for size, n in zip(found[::-1], wanted[::-1], strict=False)
    ):
        raise errors.ArgumentError(
            f"The positions have shape {found}, but an input of shape {shape} has positions of shape {wanted}.",
            "Pass one position for each entry along the axis of length.",
        )
    return jnp.asarray(positions, jnp.float32)


publish(rotary_embedding)
