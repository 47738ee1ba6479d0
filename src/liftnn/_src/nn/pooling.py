"""Pooling: each window of the input becomes its average, maximum, minimum or any other reduction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from liftnn import errors
from liftnn._src.tracebacks import boundary

Padding = str | Sequence[tuple[int, int]]


@boundary
def pool(
    inputs: jax.Array,
    init: ArrayLike,
    reduce_fn: Callable[[Any, Any], Any],
    window_shape: Sequence[int],
    strides: Sequence[int] | None,
    padding: Padding,
) -> jax.Array:
    """Reduces each window of the input with any function of two values.

    JAX knows the gradient of sums, maxima and minima only.

    Args:
      inputs: Array of shape `(*batch, *space, features)` with any number of batch axes, also none.
      init: What the reduction starts from, such as 0 for a sum.
      reduce_fn: The function of two values, such as `jax.lax.add`.
      window_shape: Size of the window along each spatial dimension.
      strides: Distance between neighbouring windows along each spatial dimension. None is 1 along each.
      padding: `"SAME"`, `"VALID"`, or a pair `(low, high)` for each spatial dimension.

    Returns:
      Array of shape `(*batch, *space, features)`, its space as large as window, strides and padding make it.

    Raises:
      ArgumentError: If strides or padding are not for as many dimensions as the window, the padding is unknown, or
        the inputs have too few axes.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> liftnn.pool(jnp.arange(4.0).reshape(1, 4, 1), 0.0, jax.lax.add, (2,), (2,), "VALID").ravel()
      Array([1., 5.], dtype=float32)
    """
    window, strides = tuple(window_shape), tuple(strides or (1,) * len(window_shape))
    batch = inputs.ndim - len(window) - 1
    _check_window(inputs.shape, window, strides, padding)
    ones = (1,) * max(batch, 1)
    if not isinstance(padding, str):
        padding = [(0, 0) for _ in ones] + [(low, high) for low, high in padding] + [(0, 0)]
    outputs = lax.reduce_window(
        inputs if batch else inputs[None],
        init,
        reduce_fn,
        (*ones, *window, 1),
        (*ones, *strides, 1),
        padding,
    )
    return outputs if batch else outputs.squeeze(0)


@boundary
def avg_pool(
    inputs: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> jax.Array:
    """The average over each window.

    Args:
      inputs: Array of shape `(*batch, *space, features)` with any number of batch axes, also none.
      window_shape: Size of the window along each spatial dimension.
      strides: Distance between neighbouring windows along each spatial dimension. The default, None, is 1.
      padding: `"SAME"`, `"VALID"` (the default), or a pair `(low, high)` for each spatial dimension.
      count_include_pad: Whether zeros of the padding count as entries of the window; True by default.

    Returns:
      Array of shape `(*batch, *space, features)`, its space as large as window, strides and padding make it.

    Raises:
      ArgumentError: As `pool` does.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> liftnn.avg_pool(jnp.arange(4.0).reshape(1, 4, 1), (2,), (2,)).ravel()
      Array([0.5, 2.5], dtype=float32)
    """
    inputs = inputs.astype(jnp.float32) if _is_exact(inputs) else inputs
    total = pool(inputs, 0.0, lax.add, window_shape, strides, padding)
    if count_include_pad:
        return total / math.prod(window_shape)
    batch = inputs.ndim - len(window_shape) - 1
    ones = jnp.ones((*(1,) * batch, *inputs.shape[batch:-1], 1), total.dtype)
    return total / pool(ones, 0.0, lax.add, window_shape, strides, padding)


@boundary
def max_pool(
    inputs: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """The maximum over each window.

    Args:
      inputs: Array of shape `(*batch, *space, features)` with any number of batch axes, also none.
      window_shape: Size of the window along each spatial dimension.
      strides: Distance between neighbouring windows along each spatial dimension. The default, None, is 1.
      padding: `"SAME"`, `"VALID"` (the default), or a pair `(low, high)` for each spatial dimension.

    Returns:
      Array of shape `(*batch, *space, features)`, its space as large as window, strides and padding make it.

    Raises:
      ArgumentError: As `pool` does.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> liftnn.max_pool(jnp.arange(4.0).reshape(1, 4, 1), (2,), (2,)).ravel()
      Array([1., 3.], dtype=float32)
    """
    return pool(inputs, _limits(inputs)[0], lax.max, window_shape, strides, padding)


@boundary
def min_pool(
    inputs: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """The minimum over each window.

    Args:
      inputs: Array of shape `(*batch, *space, features)` with any number of batch axes, also none.
      window_shape: Size of the window along each spatial dimension.
      strides: Distance between neighbouring windows along each spatial dimension. The default, None, is 1.
      padding: `"SAME"`, `"VALID"` (the default), or a pair `(low, high)` for each spatial dimension.

    Returns:
      Array of shape `(*batch, *space, features)`, its space as large as window, strides and padding make it.

    Raises:
      ArgumentError: As `pool` does.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> liftnn.min_pool(jnp.arange(4.0).reshape(1, 4, 1), (2,), (2,)).ravel()
      Array([0., 2.], dtype=float32)
    """
    return pool(inputs, _limits(inputs)[1], lax.min, window_shape, strides, padding)


def _is_exact(inputs: jax.Array) -> bool:
    """Whether the entries are integers or booleans."""
    return not jnp.issubdtype(inputs.dtype, jnp.inexact)


def _limits(inputs: jax.Array) -> tuple[Any, Any]:
    """A value that no other of the dtype is below, and one that no other is above."""
    if not _is_exact(inputs):
        return -jnp.inf, jnp.inf
    if inputs.dtype == bool:
        return False, True
    limits, number = jnp.iinfo(inputs.dtype), inputs.dtype.type
    return number(limits.min), number(limits.max)


def _check_window(
    shape: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...], padding: Padding
) -> None:
    """Raises unless the arguments of a pooling fit each other."""
    if len(shape) <= len(window):
        raise errors.ArgumentError(
            f"A window of shape {window} needs an input with more axes than it has: space and features; but the input "
            f"has shape {tuple(shape)}.",
            "Put the features last, with inputs[..., None] if there is one only.",
        )
    if len(strides) != len(window):
        raise errors.ArgumentError(
            f"The strides {strides} are not for as many dimensions as the window {window}.",
            "Give one stride for each dimension of the window.",
        )
    if isinstance(padding, str):
        fits = padding.upper() in ("SAME", "SAME_LOWER", "VALID")
    else:
        fits = len(padding) == len(window) and all(isinstance(p, Sequence) and len(p) == 2 for p in padding)
    if not fits:
        raise errors.ArgumentError(
            f"padding={padding!r} is no padding for a window of shape {window}.",
            "Give 'SAME', 'VALID', or a pair (low, high) for each dimension of the window.",
        )
