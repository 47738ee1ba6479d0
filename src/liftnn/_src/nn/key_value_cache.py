"""The cache of keys and values in decoding: append positions, and write the result back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from liftnn import errors
from liftnn._src.nn.arguments import with_axes
from liftnn._src.nn.attention_masks import combine_masks
from liftnn._src.nn.explicit_axes import Entries, entries_of, in_place_of, mesh_of, reshard_like
from liftnn._src.trees import is_tracer
from liftnn._src.variables.variable_types import Cache

KeyValueCache = tuple[Cache[jax.Array], Cache[jax.Array], Cache[jax.Array]]
"""Keys and values of shape `(*batch, length, heads, depth)`, and the number of positions so far."""
KeysAndValues = tuple[jax.Array, jax.Array]
"""All keys and all values, of the shape of the cache."""


def fitting(cache: tuple[Any, Any, Any], query: jax.Array, key: jax.Array, value: jax.Array) -> KeyValueCache:
    """Return a cache if it takes further positions.

    Args:
      cache: The Variables of the cache; None if there is none.
      query: The queries of the positions.
      key: The keys.
      value: The values.

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
    _check_arrays(cached, query, key, value)
    length, n = cached.shape[-3], key.shape[-3]
    used = None if is_tracer(index) else int(index)
    if (used or 0) + n > length:
        more = f"{n} more position{'s' * (n > 1)}"
        have = f"{length}" if used is None else f"{length}, and {min(used, length)} of them are used"
        raise errors.ArgumentError(
            f"The cache of MultiHeadAttention is too short for {more}: it has {have}.",
            "Call init_cache with a larger length, or call it again to start over.",
        )
    return cached_key, cached_value, cache_index


def _check_arrays(cached: jax.Array, query: jax.Array, key: jax.Array, value: jax.Array) -> None:
    """Raise ArgumentError if shapes or dtypes do not fit the cache."""
    wanted = (*cached.shape[:-3], query.shape[-3], *cached.shape[-2:])
    for x in (key, value):
        if x.shape != wanted:
            raise errors.ArgumentError(
                f"The cache of MultiHeadAttention has the shape {cached.shape}, so the inputs of {query.shape[-3]} "
                f"position{'s' * (query.shape[-3] != 1)} must give keys and values of shape {wanted}, but they give "
                f"{x.shape}.",
                "Call init_cache with the batch axes of the inputs, and pass queries, keys and values of the same "
                "length.",
            )
        if x.dtype != cached.dtype:
            raise errors.ArgumentError(
                f"The cache of MultiHeadAttention has dtype {cached.dtype.name}, but keys and values have "
                f"{x.dtype.name}.",
                f"Create the cache with init_cache(input_shape, dtype=jax.numpy.{x.dtype.name}).",
            )


def append(
    cache: KeyValueCache, key: jax.Array, value: jax.Array, mask: jax.Array | None
) -> tuple[KeysAndValues, KeysAndValues, jax.Array]:
    """Append positions to the keys and values of a cache, without writing to it.

    Args:
      cache: The cache.
      key: Array of shape `(*batch, n, heads, depth)`.
      value: Array of the same shape.
      mask: A mask for `n` queries, or one, and all positions of the cache, or None.

    Returns:
      All keys and values, with the sharding of the cache; the same with that of `key` and `value`; and the mask: each
      new position attends to those so far and to itself.
    """
    cached_key, cached_value, index = (variable.value for variable in cache)
    keys, values = (
        lax.dynamic_update_slice_in_dim(*_placed_alike(cached, x), index, axis=x.ndim - 3)
        for cached, x in ((cached_key, key), (cached_value, value))
    )
    *batch, length, _, _ = keys.shape
    so_far = jnp.arange(length)[None] <= positions_of(key, cache)[:, None]
    mask = None if mask is None else with_axes(jnp.asarray(mask), keys.ndim)
    combined = combine_masks(mask, jnp.broadcast_to(so_far, (*batch, 1, *so_far.shape)))
    assert combined is not None
    attended = reshard_like(keys, _without_length(key), mesh_of(key))
    return (keys, values), (attended, reshard_like(values, _without_length(value), mesh_of(value))), combined


def _placed_alike(cached: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the cache and new positions with the sharding of the cache, on a mesh with explicit axes.

    The positions are not sharded: where they go in the cache is not known before the call. A cache that is not on the
    mesh is moved there, with the sharding of the new positions.
    """
    of_cache = _without_length(cached)
    entries, mesh = (_without_length(x), mesh_of(x)) if of_cache is None else (of_cache, mesh_of(cached))
    return reshard_like(cached, entries, mesh), reshard_like(x, entries, mesh)


def _without_length(x: jax.Array) -> Entries | None:
    """Return the explicit mesh axes of each axis of keys or values, with none for that of the positions."""
    entries, length = entries_of(x), x.ndim - 3
    return None if entries is None else (*entries[:length], None, *entries[length + 1 :])


def write(cache: KeyValueCache, arrays: KeysAndValues, x: jax.Array) -> jax.Array:
    """Write all keys and values into a cache, and advance its number of positions.

    Args:
      cache: The cache.
      arrays: All keys and all values.
      x: The averages for the new positions, of shape `(*batch, n, heads, depth)`.

    Returns:
      The averages, or NaN if the cache was too short, which is not known before the call under a transform.
    """
    end, length = cache[2].value + x.shape[-3], arrays[0].shape[-3]
    for variable, new in zip(cache, (*arrays, end), strict=True):
        variable.value = in_place_of(variable.value, new)
    return jnp.where(end <= length, x, jnp.nan) if is_tracer(end) else x


def positions_of(x: jax.Array, cache: KeyValueCache | None) -> jax.Array:
    """Return the positions of queries or keys: those of the sequence, or the next of the cache."""
    positions = jnp.arange(x.shape[-3])
    return positions if cache is None else cache[2].value + positions


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
