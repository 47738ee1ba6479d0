"""The cache of keys and values in decoding: append a position, and write the result back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from liftnn import errors
from liftnn._src.nn.attention_masks import combine_masks
from liftnn._src.nn.explicit_axes import entries_of, mesh_of, reshard_like
from liftnn._src.trees import is_tracer
from liftnn._src.variables.variable_types import Cache

KeyValueCache = tuple[Cache[jax.Array], Cache[jax.Array], Cache[jax.Array]]
"""Keys and values of shape `(*batch, length, heads, depth)`, and the number of positions so far."""


def fitting(cache: tuple[Any, Any, Any], key: jax.Array, value: jax.Array) -> KeyValueCache:
    """Return a cache if it takes one position.

    Args:
      cache: The Variables of the cache; None if there is none.
      key: The key of the position.
      value: The value of the position.

    Returns:
      The cache.

    Raises:
      ArgumentError: If the cache does not exist, if it is full, or if shapes or dtypes do not fit.
    """
    cached_key, cached_value, cache_index = cache
    if cached_key is None or cached_value is None or cache_index is None:
        raise errors.ArgumentError(
            "MultiHeadAttention decodes with a cache of keys and values, but it has none.",
            "Call init_cache((*batch, length, features)) first, where length is the largest number of positions.",
        )
    cached, index = cached_key.value, cache_index.value
    wanted = (*cached.shape[:-3], 1, *cached.shape[-2:])
    for x in (key, value):
        if x.shape != wanted:
            raise errors.ArgumentError(
                f"MultiHeadAttention decodes one position in a call: its cache of shape {cached.shape} takes keys "
                f"and values of shape {wanted}, but the inputs give {x.shape}.",
                "Pass inputs with one position, x[:, i : i + 1], and call init_cache with their batch axes.",
            )
        if x.dtype != cached.dtype:
            raise errors.ArgumentError(
                f"The cache of MultiHeadAttention has dtype {cached.dtype.name}, but keys and values have "
                f"{x.dtype.name}.",
                f"Create the cache with init_cache(input_shape, dtype=jax.numpy.{x.dtype.name}).",
            )
    if not is_tracer(index) and int(index) >= cached.shape[-3]:
        raise errors.ArgumentError(
            f"The cache of MultiHeadAttention is full: it has {cached.shape[-3]} positions.",
            "Call init_cache with a larger length, or call it again to start over.",
        )
    return cached_key, cached_value, cache_index


def append(
    cache: KeyValueCache, key: jax.Array, value: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Append one position to the keys and values of a cache, without writing to it.

    Args:
      cache: The cache.
      key: Array of shape `(*batch, 1, heads, depth)`.
      value: Array of the same shape.
      mask: A mask for all positions of the cache, or None.

    Returns:
      All keys, all values, and the mask of the positions so far, the new one included.
    """
    cached_key, cached_value, index = (variable.value for variable in cache)
    keys, values = (
        lax.dynamic_update_slice_in_dim(_placed_like(cached, x), x, index, axis=x.ndim - 3)
        for cached, x in ((cached_key, key), (cached_value, value))
    )
    *batch, length, _, _ = keys.shape
    so_far = jnp.broadcast_to(jnp.arange(length) <= index, (*batch, 1, 1, length))
    combined = combine_masks(mask, so_far)
    assert combined is not None
    return keys, values, combined


def _placed_like(cached: jax.Array, x: jax.Array) -> jax.Array:
    """Return the cache with the sharding of a new position, on a mesh with explicit axes."""
    entries = entries_of(x)
    if entries is None:
        return cached
    length = x.ndim - 3
    return reshard_like(cached, (*entries[:length], None, *entries[length + 1 :]), mesh_of(x))


def write(cache: KeyValueCache, keys: jax.Array, values: jax.Array, x: jax.Array) -> jax.Array:
    """Write all keys and values into a cache, and advance its number of positions.

    Args:
      cache: The cache.
      keys: All keys.
      values: All values.
      x: The averages for the new position.

    Returns:
      The averages, or NaN if the cache was full, which is not known before the call under a transform.
    """
    index = cache[2].value
    for variable, new in zip(cache, (keys, values, index + 1), strict=True):
        variable.value = new
    return jnp.where(index < keys.shape[-3], x, jnp.nan) if is_tracer(index) else x


def positions_of(x: jax.Array, cache: KeyValueCache | None) -> jax.Array:
    """Return the positions of queries or keys: those of the sequence, or the one that is decoded."""
    return jnp.arange(x.shape[-3]) if cache is None else cache[2].value[None]


def input_shape_of(batch_size: int | Sequence[int] | None, max_length: int | None) -> tuple[int, ...]:
    """Return the shape of inputs for which a cache of a given size is made.

    Args:
      batch_size: The size of the batch, or its shape.
      max_length: The largest number of positions.

    Returns:
      The shape `(*batch, length, features)`; the number of features does not matter.

    Raises:
      ArgumentError: If one of them is None.
    """
    if batch_size is None or max_length is None:
        raise errors.ArgumentError(
            "MultiHeadAttention has no cache yet, and its size is not given.",
            "Pass batch_size and max_length to liftnn.view, or call init_cache first.",
        )
    return (*((batch_size,) if isinstance(batch_size, int) else batch_size), max_length, 1)
