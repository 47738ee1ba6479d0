"""Arrays as Orbax can hold them, and back: typed keys as their data, small number types in wider or unsigned ones."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_HELD = frozenset(
    ["bool", "bfloat16", "float16", "float32", "float64", "complex64", "complex128"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
"""The dtypes that Orbax and its file format hold."""


def is_key(x: Any) -> bool:
    """Return whether an array, abstract or not, holds typed PRNG keys."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


@functools.cache
def can_store(dtype: Any) -> bool:
    """Return whether arrays of a dtype can be saved: numbers that JAX has, booleans and PRNG keys."""
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return True
    dtype = native(dtype)
    is_added = dtype.isbuiltin == 2  # to those of numpy, which also has long doubles, texts and times
    return dtype.name in _HELD or (is_added and jnp.issubdtype(dtype, jnp.number))


def native(dtype: Any) -> np.dtype[Any]:
    """Return a dtype in the byte order of this machine."""
    return np.dtype(dtype).newbyteorder("=")


@functools.cache
def stored_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype that an array of a dtype other than that of keys is stored with."""
    dtype = native(dtype)
    if dtype.name in _HELD:
        return dtype
    if dtype.name.startswith("float8"):
        return np.dtype(np.uint8)  # the same bits
    if jnp.issubdtype(dtype, jnp.integer):
        return np.dtype(np.int8 if jnp.issubdtype(dtype, jnp.signedinteger) else np.uint8)
    return np.dtype(jnp.bfloat16)  # holds all values of floats with fewer than 8 bits


def to_stored(x: Any) -> Any:
    """Return the array to store for an array.

    Args:
      x: A jax.Array, also sharded and of typed keys, or a numpy array.

    Returns:
      An array of the same kind and sharding, of a dtype that Orbax holds; a copy of a numpy array. With several
      processes, an array that this process holds as a whole becomes a numpy array: Orbax writes that of one process.
    """
    if is_key(x):
        return _of_one_process(jax.random.key_data(x))
    dtype = stored_dtype(x.dtype)
    if isinstance(x, np.ndarray):
        return np.array(x.view(dtype) if _by_bits(x.dtype) else x.astype(dtype), order="C")
    return _of_one_process(x if x.dtype == dtype else _convert(x, dtype))


def _of_one_process(x: jax.Array) -> Any:
    """Return a copy in numpy of an array that each process has for itself, for which Orbax raises."""
    return np.array(x) if jax.process_count() > 1 and x.is_fully_addressable else x


def from_stored(x: Any, dtype: Any, impl: str | None) -> Any:
    """Return the array for a stored one; the inverse of `to_stored`.

    Args:
      x: The stored array.
      dtype: The dtype of the array.
      impl: For typed keys, the name of their implementation.

    Returns:
      The array.
    """
    if impl is not None:
        return jax.random.wrap_key_data(jnp.asarray(x), impl=impl)
    if x.dtype == dtype:
        return x
    if isinstance(x, np.ndarray):
        return x.view(dtype) if _by_bits(dtype) else x.astype(dtype)
    return _convert(x, dtype)


def _by_bits(dtype: Any) -> bool:
    return np.dtype(dtype).name.startswith("float8")


def _convert(x: jax.Array, dtype: Any) -> jax.Array:
    """Convert a jax.Array from or to the dtype that it is stored with."""
    if _by_bits(x.dtype) or _by_bits(dtype):
        return jax.lax.bitcast_convert_type(x, dtype)
    return x.astype(dtype)


def data_shape(shape: tuple[int, ...], impl: str | None) -> tuple[int, ...]:
    """Return the shape of the stored array: that of the data for typed keys."""
    if impl is None:
        return shape
    return (*shape, *jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl))).shape)
