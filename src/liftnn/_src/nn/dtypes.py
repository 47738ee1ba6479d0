"""The dtype of a layer's computation, inferred from its inputs and weights or set explicitly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from liftnn import errors
from liftnn._src.publish import PICKLED, publish
from liftnn._src.trees import is_jax_array
from liftnn._src.variables.variable import Variable

PromoteDtype = Callable[..., tuple[Any, ...]]
"""A function `(arrays, *, dtype) -> arrays`, such as `promote_dtype`, that casts a layer's operands to one dtype."""


def canonicalize_dtype(
    *args: ArrayLike | None, dtype: DTypeLike | None = None, inexact: bool = True
) -> DTypeLike:
    """Return the dtype to compute in.

    Args:
      *args: Arrays of any shape and dtype, from which the dtype is inferred; None is ignored.
      dtype: The dtype to compute in. The default, None, infers it with `jax.numpy.result_type`.
      inexact: Whether the dtype must be floating point or complex. With the default, True, an inferred integer dtype is
        promoted to a floating point dtype.

    Returns:
      The dtype.

    Raises:
      ArgumentError: If `dtype` is an integer or boolean dtype and `inexact` is True.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.nn import dtypes
      >>> dtypes.canonicalize_dtype(jnp.ones((2,), jnp.bfloat16), None, jnp.ones((2,), jnp.float32))
      dtype('float32')
    """
    if dtype is None:
        dtype = jnp.result_type(*[jnp.asarray(x) for x in args if x is not None])
        if inexact and not jnp.issubdtype(dtype, jnp.inexact):
            return jnp.promote_types(jnp.float32, dtype)
    elif inexact and not jnp.issubdtype(dtype, jnp.inexact):
        raise errors.ArgumentError(
            f"A layer cannot compute in dtype={jnp.dtype(dtype).name}: it needs a floating point or complex dtype.",
            "Pass a dtype such as jax.numpy.float32 or jax.numpy.bfloat16, or None to infer it.",
        )
    return dtype


def promote_dtype(
    args: tuple[ArrayLike | None, ...], /, *, dtype: DTypeLike | None = None, inexact: bool = True
) -> tuple[Any, ...]:
    """Cast arrays to a common dtype.

    Args:
      args: Arrays of any shape and dtype; None stays None.
      dtype: The dtype of the results. The default, None, infers it as `canonicalize_dtype` does.
      inexact: Whether the dtype must be floating point or complex; True by default.

    Returns:
      A tuple of arrays of the same dtype, with None where `args` has None.

    Raises:
      ArgumentError: If `dtype` is an integer or boolean dtype and `inexact` is True.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.nn import dtypes
      >>> x, bias = dtypes.promote_dtype((jnp.arange(3), None))
      >>> x.dtype, bias
      (dtype('float32'), None)
    """
    common = _common_dtype(args)
    if common is not None and (dtype is None or dtype == common):
        return tuple(args)  # there is nothing to cast, as in most calls
    dtype = canonicalize_dtype(*args, dtype=dtype, inexact=inexact)
    return tuple(None if x is None else jnp.asarray(x, dtype) for x in args)


@functools.cache
def _stays(dtype: Any) -> bool:
    """Return whether promotion leaves arrays of a dtype as they are; those of 64 bits depend on `jax_enable_x64`."""
    return jnp.issubdtype(dtype, jnp.inexact) and dtype not in (jnp.float64, jnp.complex128)


def _common_dtype(args: tuple[Any, ...]) -> Any:
    """Return the dtype of arrays that promotion leaves as they are; None if they need a look at each."""
    found: Any = None
    for x in args:
        if x is None:
            continue
        if not is_jax_array(x) or not _stays(x.dtype) or x.weak_type or x.dtype != (found or x.dtype):
            return None
        found = x.dtype
    return found


@overload
def value_of(weight: Variable[Any]) -> jax.Array: ...


@overload
def value_of(weight: Any) -> jax.Array | None: ...


def value_of(weight: Any) -> Any:
    """Return the array of a weight, a Variable or an array in its place; None if the layer does not have it."""
    return weight.value if isinstance(weight, Variable) else weight


publish(promote_dtype, module=PICKLED)
