"""What layers do with their arguments: make weights, check shapes, pass on the options that were given."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.nn.initializers import Initializer
from liftnn._src.rngs import Rngs
from liftnn._src.variables.variable_types import Param

Axes = int | Sequence[int]


def new_param(
    rngs: Rngs,
    initializer: Initializer,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    metadata: Mapping[str, Any],
) -> Param:
    """A weight, drawn with the next key of the `params` stream.

    Args:
      rngs: Where the key comes from.
      initializer: The function `(key, shape, dtype) -> array` that fills the weight.
      shape: Shape of the weight.
      dtype: Dtype of the weight.
      metadata: Metadata of the Param.

    Returns:
      The Param.

    Raises:
      ArgumentError: If `rngs` is not a `Rngs`.
    """
    if not isinstance(rngs, Rngs):
        raise errors.ArgumentError(
            f"A layer draws its weights from a liftnn.Rngs, but rngs is of type {type(rngs).__qualname__}.",
            "Pass rngs=liftnn.Rngs(0), where 0 is the seed.",
        )
    return Param(initializer(rngs.params(), shape, dtype), **metadata)


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None, so that a function of the user need not know the others."""
    return {name: value for name, value in options.items() if value is not None}


@functools.partial(jax.jit, inline=True)  # JAX traces and differentiates it once, not in each layer
def add_bias(y: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Adds a bias of shape `(features,)` along the last axis, if there is one."""
    return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


def as_tuple(sizes: int | Iterable[int]) -> tuple[int, ...]:
    """A size or a sequence of sizes as a tuple."""
    return tuple(sizes) if isinstance(sizes, Iterable) else (sizes,)


def normalize_axes(ndim: int, axes: Axes) -> tuple[int, ...]:
    """Axes counted from the front, each once, in order.

    Args:
      ndim: Number of axes of the array.
      axes: An axis or several; negative ones count from the back.

    Returns:
      The axes.

    Raises:
      ArgumentError: If the array has no such axis.
    """
    wanted = as_tuple(axes)
    if not all(-ndim <= axis < ndim for axis in wanted):
        raise errors.ArgumentError(
            f"The layer works on axes {wanted}, but its input has {ndim} axes.",
            "Give an input with more axes, or other axes to the layer.",
        )
    return tuple(sorted({axis % ndim for axis in wanted}))


def check_features(layer: str, shape: tuple[int, ...], axes: Axes, expected: int) -> None:
    """Raises unless the input has the number of features that the layer was made for.

    Args:
      layer: Name of the layer's class.
      shape: Shape of the input.
      axes: The feature axes.
      expected: How many features the layer's weights have.

    Raises:
      ArgumentError: If the product of the sizes along `axes` is another number.
    """
    axes = normalize_axes(len(shape), axes)
    found = math.prod(shape[axis] for axis in axes)
    if found != expected:
        where = f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"
        raise errors.ArgumentError(
            f"This {layer} was made for {expected} input features, but its input of shape {tuple(shape)} has {found} "
            f"along {where}.",
            "Make the layer with the input's number of features, or change the input.",
        )


def check_mask(mask: Any, kernel_shape: tuple[int, ...]) -> None:
    """Raises if there is a mask and it has not the shape of the kernel.

    Args:
      mask: An array, or None.
      kernel_shape: The shape it must have.

    Raises:
      ArgumentError: If it has another shape.
    """
    if mask is not None and jnp.shape(mask) != kernel_shape:
        raise errors.ArgumentError(
            f"The mask of a convolution has shape {jnp.shape(mask)}, its kernel {kernel_shape}.",
            "Give a mask of the kernel's shape.",
        )
