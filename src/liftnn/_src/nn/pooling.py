"""Pooling: reduce each window of the input to its average, maximum, minimum or another reduction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from liftnn import errors
from liftnn._src.nn.arguments import as_input
from liftnn._src.nn.windows import Padding
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary


@boundary
def pool(
    inputs: jax.Array,
    init: ArrayLike,
    reduce_fn: Callable[[Any, Any], Any],
    window_shape: Sequence[int],
    strides: int | Sequence[int] | None,
    padding: Padding,
) -> jax.Array:
    """Reduce each window of the input with a function of two values.

    JAX can differentiate only sums, maxima and minima.

    Args:
      inputs: Array of shape `(*batch, *space, features)` with any number of batch axes, including none.
      init: The initial value of the reduction, such as 0 for a sum.
      reduce_fn: The function of two values, such as `jax.lax.add`.
      window_shape: Size of the window along each spatial dimension.
      strides: The stride of the window along each spatial dimension, or an int for all. None means 1 for each.
      padding: `"SAME"`, `"VALID"`, an int for all sides, or for each spatial dimension an int or a pair `(low, high)`.

    Returns:
      Array of shape `(*batch, *space, features)`; window, strides and padding determine its spatial sizes.

    Raises:
      ArgumentError: If strides, padding and window do not have the same number of dimensions, if the padding is
        unknown, or if the inputs have too few axes.
      ArgumentTypeError: If the window is an int: it does not tell the number of spatial dimensions.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> liftnn.pool(jnp.arange(4.0).reshape(1, 4, 1), 0.0, jax.lax.add, (2,), (2,), "VALID").ravel()
      Array([1., 5.], dtype=float32)
    """
    inputs, window = as_input("pool", inputs), _as_window(window_shape)
    strides = (int(strides),) * len(window) if isinstance(strides, (int, Integral)) else strides
    strides = tuple(strides or (1,) * len(window))
    pairs = _as_pairs(padding, len(window))
    batch = inputs.ndim - len(window) - 1
    _check_window(inputs.shape, window, strides, pairs)
    ones = (1,) * max(batch, 1)
    if not isinstance(pairs, str):
        pairs = [(0, 0)] * len(ones) + [(int(low), int(high)) for low, high in pairs] + [(0, 0)]
    outputs = lax.reduce_window(
        inputs if batch else inputs[None],
        init,
        reduce_fn,
        (*ones, *window, 1),
        (*ones, *strides, 1),
        pairs,
    )
    return outputs if batch else outputs.squeeze(0)


@boundary
def avg_pool(
    inputs: jax.Array,
    window_shape: Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> jax.Array:
    """Compute the average of each window. The sums of half-precision inputs are computed in float32.

    Args:
      inputs: Array of shape `(*batch, *space, features)` with any number of batch axes, including none.
      window_shape: Size of the window along each spatial dimension.
      strides: The stride of the window along each spatial dimension, or an int for all. The default, None, means 1.
      padding: `"SAME"`, `"VALID"` (the default), an int for all sides, or for each spatial dimension an int or a pair
        `(low, high)`.
      count_include_pad: Whether padded zeros are included in the average; True by default.

    Returns:
      Array of shape `(*batch, *space, features)`; window, strides and padding determine its spatial sizes.

    Raises:
      ArgumentError: In the same cases as `pool`.
      ArgumentTypeError: If the window is an int.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> liftnn.avg_pool(jnp.arange(4.0).reshape(1, 4, 1), (2,), (2,)).ravel()
      Array([0.5, 2.5], dtype=float32)
    """
    inputs = as_input("avg_pool", inputs)
    dtype = jnp.float32 if _is_exact(inputs) else inputs.dtype
    # Sums in half precision lose most of large windows.
    inputs = inputs.astype(jnp.promote_types(dtype, jnp.float32))
    total = pool(inputs, 0.0, lax.add, window_shape, strides, padding)
    if count_include_pad:
        return (total / math.prod(window_shape)).astype(dtype)
    batch = inputs.ndim - len(window_shape) - 1
    ones = jnp.ones((*(1,) * batch, *inputs.shape[batch:-1], 1), total.dtype)
    return (total / pool(ones, 0.0, lax.add, window_shape, strides, padding)).astype(dtype)


@boundary
def max_pool(
    inputs: jax.Array,
    window_shape: Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Compute the maximum of each window.

    Args:
      inputs: Array of shape `(*batch, *space, features)` with any number of batch axes, including none.
      window_shape: Size of the window along each spatial dimension.
      strides: The stride of the window along each spatial dimension, or an int for all. The default, None, means 1.
      padding: `"SAME"`, `"VALID"` (the default), an int for all sides, or for each spatial dimension an int or a pair
        `(low, high)`.

    Returns:
      Array of shape `(*batch, *space, features)`; window, strides and padding determine its spatial sizes.

    Raises:
      ArgumentError: In the same cases as `pool`.
      ArgumentTypeError: If the window is an int.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> liftnn.max_pool(jnp.arange(4.0).reshape(1, 4, 1), (2,), (2,)).ravel()
      Array([1., 3.], dtype=float32)
    """
    inputs = as_input("max_pool", inputs)
    return pool(inputs, _limits(inputs)[0], lax.max, window_shape, strides, padding)


@boundary
def min_pool(
    inputs: jax.Array,
    window_shape: Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Compute the minimum of each window.

    Args:
      inputs: Array of shape `(*batch, *space, features)` with any number of batch axes, including none.
      window_shape: Size of the window along each spatial dimension.
      strides: The stride of the window along each spatial dimension, or an int for all. The default, None, means 1.
      padding: `"SAME"`, `"VALID"` (the default), an int for all sides, or for each spatial dimension an int or a pair
        `(low, high)`.

    Returns:
      Array of shape `(*batch, *space, features)`; window, strides and padding determine its spatial sizes.

    Raises:
      ArgumentError: In the same cases as `pool`.
      ArgumentTypeError: If the window is an int.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> liftnn.min_pool(jnp.arange(4.0).reshape(1, 4, 1), (2,), (2,)).ravel()
      Array([0., 2.], dtype=float32)
    """
    inputs = as_input("min_pool", inputs)
    return pool(inputs, _limits(inputs)[1], lax.min, window_shape, strides, padding)


def _is_exact(inputs: jax.Array) -> bool:
    """Check whether the entries are integers or booleans."""
    return not jnp.issubdtype(inputs.dtype, jnp.inexact)


def _limits(inputs: jax.Array) -> tuple[Any, Any]:
    """Return the smallest and the largest value of the dtype."""
    if not _is_exact(inputs):
        return -jnp.inf, jnp.inf
    if inputs.dtype == bool:
        return False, True
    limits, number = jnp.iinfo(inputs.dtype), inputs.dtype.type
    return number(limits.min), number(limits.max)


def _as_window(window: Any) -> tuple[int, ...]:
    """Return a window as a tuple; raise ArgumentTypeError if it is an int, as there are any number of batch axes."""
    if isinstance(window, (int, Integral)):
        raise errors.ArgumentTypeError(
            f"The window of a pooling has one size for each spatial dimension, but window_shape is the int {window}.",
            f"Pass a tuple, such as ({window}, {window}) for images; liftnn does not guess which axes are batch axes.",
        )
    return tuple(window)


def _as_pairs(padding: Any, rank: int) -> Any:
    """Return a padding with a pair in place of each int; a name stays."""
    if isinstance(padding, (int, Integral)):
        return ((padding, padding),) * rank
    if isinstance(padding, str):
        return padding
    return tuple([(p, p) if isinstance(p, (int, Integral)) else p for p in padding])


def _check_window(
    shape: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...], padding: Any
) -> None:
    """Raise ArgumentError if the arguments of a pooling are inconsistent."""
    if len(shape) <= len(window):
        raise errors.ArgumentError(
            f"A window of shape {window} needs an input of shape (*batch, *space, features), but the input has shape "
            f"{tuple(shape)}.",
            "Pass an input with a feature axis at the end; for a single feature use inputs[..., None].",
        )
    if len(strides) != len(window):
        raise errors.ArgumentError(
            f"The strides {strides} and the window {window} have different numbers of dimensions.",
            "Pass one stride for each dimension of the window.",
        )
    if isinstance(padding, str):
        fits = padding.upper() in ("SAME", "SAME_LOWER", "VALID")
    else:
        fits = len(padding) == len(window) and all(isinstance(p, Sequence) and len(p) == 2 for p in padding)
    if not fits:
        raise errors.ArgumentError(
            f"padding={padding!r} is not a valid padding for a window of shape {window}.",
            "Pass 'SAME', 'VALID', an int, or for each dimension of the window an int or a pair (low, high).",
        )


publish(avg_pool, max_pool, min_pool, pool)
