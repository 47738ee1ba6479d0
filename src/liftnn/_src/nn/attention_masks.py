"""Masks of attention: which query may attend to which key."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary


@boundary
def make_attention_mask(
    query_input: jax.Array,
    key_input: jax.Array,
    pairwise_fn: Callable[..., jax.Array] = jnp.multiply,
    extra_batch_dims: int = 0,
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """Compare each query with each key, for example to exclude padding.

    Args:
      query_input: Array of shape `(*batch, query_length)`, for example True for tokens and False for padding.
      key_input: Array of shape `(*batch, key_length)`.
      pairwise_fn: A function of two arrays that broadcast against each other. The default, `jax.numpy.multiply`, is the
        logical and of zeros and ones.
      extra_batch_dims: Number of axes of size 1 to add at the front; 0 by default.
      dtype: Dtype of the mask; float32 by default.

    Returns:
      Array of shape `(*ones, *batch, 1, query_length, key_length)`, which broadcasts over the heads.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> is_token = jnp.array([[True, True, False]])
      >>> liftnn.make_attention_mask(is_token, is_token, dtype=int)[0, 0].tolist()
      [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    """
    mask = pairwise_fn(jnp.asarray(query_input)[..., None], jnp.asarray(key_input)[..., None, :])
    ones = (1,) * extra_batch_dims
    return mask.reshape((*ones, *mask.shape[:-2], 1, *mask.shape[-2:])).astype(dtype)


@boundary
def make_causal_mask(x: jax.Array, extra_batch_dims: int = 0, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Make the mask of causal self-attention: each position attends to itself and to those before it.

    Args:
      x: Array of shape `(*batch, length)`, of which only the shape matters.
      extra_batch_dims: Number of axes of size 1 to add at the front; 0 by default.
      dtype: Dtype of the mask; float32 by default.

    Returns:
      Array of shape `(*ones, *batch, 1, length, length)`, which broadcasts over the heads.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> liftnn.make_causal_mask(jnp.ones((1, 3)), dtype=int)[0, 0].tolist()
      [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    positions = jnp.broadcast_to(jnp.arange(jnp.shape(x)[-1]), jnp.shape(x))
    return make_attention_mask(positions, positions, jnp.greater_equal, extra_batch_dims, dtype)


@boundary
def combine_masks(*masks: jax.Array | None, dtype: DTypeLike = jnp.float32) -> jax.Array | None:
    """Combine masks by logical and.

    Args:
      *masks: Arrays of the same number of axes that broadcast against each other; None is ignored.
      dtype: Dtype of the mask; float32 by default.

    Returns:
      The mask, or None if all masks are None.

    Raises:
      ArgumentError: If the masks have different numbers of axes.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> is_token = jnp.array([[True, True, False]])
      >>> padding = liftnn.make_attention_mask(is_token, is_token)
      >>> liftnn.combine_masks(padding, None, liftnn.make_causal_mask(is_token), dtype=int)[0, 0].tolist()
      [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    """
    found = [jnp.asarray(mask) for mask in masks if mask is not None]
    if not found:
        return None
    if len({mask.ndim for mask in found}) > 1:
        raise errors.ArgumentError(
            f"Masks must have the same number of axes, but their shapes are "
            f"{', '.join(str(mask.shape) for mask in found)}.",
            "Add the missing axes of size 1, for example with mask[:, None].",
        )
    combined = found[0]
    for mask in found[1:]:
        combined = jnp.logical_and(combined, mask)
    return combined.astype(dtype)


publish(combine_masks, make_attention_mask, make_causal_mask)
