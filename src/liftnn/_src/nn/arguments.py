"""Arguments of layers: create weights, check shapes, and collect optional arguments."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.nn import initializers
from liftnn._src.nn.initializers import Initializer
from liftnn._src.rngs import Rngs
from liftnn._src.trees import an, is_argument_array, is_jax_array
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Param

V = TypeVar("V", bound=Variable[Any])
Axes = int | Sequence[int]


def new_param(
    rngs: Rngs,
    initializer: Initializer,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    metadata: Mapping[str, Any],
) -> Param:
    """Create a weight, initialized with the next key of the `params` stream.

    Args:
      rngs: The random keys.
      initializer: A function `(key, shape, dtype) -> array`.
      shape: Shape of the weight.
      dtype: Dtype of the weight.
      metadata: Metadata of the Param.

    Returns:
      The Param.

    Raises:
      ArgumentError: If `rngs` is not an `Rngs`, or if the initializer is a function that makes one.
      ArgumentTypeError: If the initializer is not a function.
    """
    return new_variable(Param, rngs, initializer, shape, dtype, metadata)


def new_variable(
    variable_type: type[V],
    rngs: Rngs,
    initializer: Initializer,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    metadata: Mapping[str, Any],
) -> V:
    """Create a weight as `new_param` does, of another type than Param.

    Args:
      variable_type: The type of the Variable.
      rngs: The random keys.
      initializer: A function `(key, shape, dtype) -> array`.
      shape: Shape of the weight.
      dtype: Dtype of the weight.
      metadata: Metadata of the Variable.

    Returns:
      The Variable.

    Raises:
      ArgumentError: If `rngs` is not an `Rngs`, or if the initializer is a function that makes one.
      ArgumentTypeError: If the initializer is not a function.
    """
    check_rngs(rngs)
    check_initializer(initializer)
    return variable_type(initializer(rngs.params(), shape, dtype), **metadata)


def check_initializer(initializer: Any) -> None:
    """Raise an error if an object is not an initializer: not a function, or a function that makes initializers."""
    if not callable(initializer):
        raise errors.ArgumentTypeError(
            "An initializer must be a function `(key, shape, dtype) -> array`, not "
            f"{an(type(initializer))}: {initializer!r:.80}.",
            "Pass one of `liftnn.initializers`, such as `zeros_init()` or `constant(0.5)`.",
        )
    if any(initializer is each for each in initializers.FACTORIES):
        name = initializer.__name__
        raise errors.ArgumentError(
            f"{name} makes an initializer; it is not one itself.",
            f"Call it: `{name}()` in place of `{name}`.",
        )


def check_functions(layer: Any, /, **functions: Any) -> None:
    """Raise ArgumentTypeError unless each argument of a layer, given by name, can be called."""
    for name, function in functions.items():
        if not callable(function):
            raise errors.ArgumentTypeError(
                f"{name} of {type(layer).__name__} must be a function, not {an(type(function))}: "
                f"{function!r:.80}.",
                "Pass a function of arrays, such as `liftnn.tanh`.",
            )


def check_rngs(rngs: object) -> None:
    """Raise ArgumentError if an object is not an `Rngs`."""
    if not isinstance(rngs, Rngs):
        raise errors.ArgumentError(
            f"A layer initializes its weights with a liftnn.Rngs, but rngs is of type {type(rngs).__qualname__}.",
            "Pass rngs=liftnn.Rngs(0), where 0 is the seed.",
        )


def without_none(**options: Any) -> dict[str, Any]:
    """Return the options that are not None, so that a user's function needs no parameters for the others."""
    return {name: value for name, value in options.items() if value is not None}


@functools.partial(jax.jit, inline=True)  # JAX traces and differentiates it once, not in each layer
def add_bias(y: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Add a bias of shape `(features,)` along the last axis, unless it is None."""
    return y if bias is None else y + with_axes(bias, y.ndim)


def with_axes(x: jax.Array, ndim: int) -> jax.Array:
    """Return an array with leading axes of size 1, up to `ndim` axes, which JAX can be set not to add implicitly."""
    return x if x.ndim >= ndim else x.reshape((1,) * (ndim - x.ndim) + x.shape)


def as_tuple(sizes: int | Iterable[int]) -> tuple[int, ...]:
    """Convert a size or a sequence of sizes to a tuple."""
    if not isinstance(sizes, Iterable) or np.ndim(sizes) == 0:  # pyright: ignore[reportArgumentType]  # as of an array
        return (sizes,)  # pyright: ignore[reportReturnType]  # an array that is an index
    return tuple(sizes)


def normalize_axes(ndim: int, axes: Axes) -> tuple[int, ...]:
    """Convert axes to sorted, distinct, non-negative ones.

    Args:
      ndim: Number of axes of the array.
      axes: An axis or several; negative axes count from the end.

    Returns:
      The axes.

    Raises:
      ArgumentError: If the array has no such axis.
    """
    wanted = as_tuple(axes)
    if not all(-ndim <= axis < ndim for axis in wanted):
        raise errors.ArgumentError(
            f"The layer needs axes {wanted}, but its input has {ndim} axes.",
            "Pass an input with more axes, or create the layer with other axes.",
        )
    return tuple(sorted({axis % ndim for axis in wanted}))


def shape_of_input(layer: str, x: Any) -> tuple[int, ...]:
    """Return the shape of an input.

    Args:
      layer: Name of the layer's class.
      x: The input.

    Returns:
      The shape.

    Raises:
      ArgumentTypeError: If the input is not an array.
    """
    if is_jax_array(x):
        return x.shape
    if not is_argument_array(x) and not hasattr(x, "__array__") and not isinstance(x, (list, tuple)):
        found = "None" if x is None else f"of type {type(x).__qualname__}"
        raise errors.ArgumentTypeError(
            f"This {layer} takes an array, but its input is {found}.",
            "Pass an array. If the input is the result of a function, check that it returns one.",
        )
    return np.shape(x)  # that of JAX takes no lists


def as_input(layer: str, x: Any) -> jax.Array:
    """Return an input as an array.

    Args:
      layer: Name of the layer's class.
      x: The input.

    Returns:
      The array.

    Raises:
      ArgumentTypeError: If the input is not an array.
    """
    shape_of_input(layer, x)
    return jnp.asarray(x)


def check_features(layer: str, shape: tuple[int, ...], axes: Axes, expected: int) -> None:
    """Raise ArgumentError if the input does not have the layer's number of features.

    Args:
      layer: Name of the layer's class.
      shape: Shape of the input.
      axes: The feature axes.
      expected: Number of features of the layer's weights.

    Raises:
      ArgumentError: If the product of the sizes along `axes` is not `expected`.
    """
    axes = normalize_axes(len(shape), axes)
    found = math.prod(shape[axis] for axis in axes)
    if found != expected:
        where = f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"
        raise errors.ArgumentError(
            f"This {layer} expects {expected} input features, but its input of shape {tuple(shape)} has {found} "
            f"along {where}.",
            "Create the layer with the input's number of features, or change the input.",
        )


def check_mask(mask: Any, kernel_shape: tuple[int, ...]) -> None:
    """Raise ArgumentError if a mask does not have the shape of the kernel.

    Args:
      mask: An array, or None.
      kernel_shape: The shape of the kernel.

    Raises:
      ArgumentError: If the shapes differ.
    """
    if mask is not None and jnp.shape(mask) != kernel_shape:
        raise errors.ArgumentError(
            f"The mask of a convolution has shape {jnp.shape(mask)}, but its kernel has shape {kernel_shape}.",
            "Pass a mask of the kernel's shape.",
        )


def check_normalized(layer: str, x: Any, axes: Axes, expected: int, mask: Any) -> tuple[int, ...]:
    """Check the input and the mask of a normalization, and return the input's shape.

    Args:
      layer: Name of the layer's class.
      x: The input.
      axes: The feature axes.
      expected: The layer's number of features.
      mask: An array, or None.

    Raises:
      ArgumentError: If the input has another number of features, or the mask does not broadcast to its shape.
      ArgumentTypeError: If the input is not an array.
    """
    shape = shape_of_input(layer, x)
    check_features(layer, shape, axes, expected)
    _check_broadcasts(layer, mask, shape)
    return shape


def _check_broadcasts(layer: str, mask: Any, shape: tuple[int, ...]) -> None:
    """Raise ArgumentError if a mask does not broadcast to the shape of the input.

    Args:
      layer: Name of the layer's class.
      mask: An array, or None.
      shape: Shape of the input.

    Raises:
      ArgumentError: If an axis of the mask has neither the size of the input's nor 1, or the mask has more axes.
    """
    found = () if mask is None else tuple(np.shape(mask))
    last = shape[len(shape) - len(found) :] if len(found) <= len(shape) else ()
    if len(found) != len(last) or any(
        size not in (1, wanted) for size, wanted in zip(found, last, strict=True)
    ):
        raise errors.ArgumentError(
            f"The mask of this {layer} must broadcast to the shape of its input, {tuple(shape)}, but it has the shape "
            f"{found}.",
            "Pass a mask of the input's shape, or one with axes of size 1, such as `mask[..., None]`, that repeats.",
        )


def check_divides(layer: Any, name: str, size: int, divisor_name: str, divisor: int) -> None:
    """Raise ArgumentError if a size is not a multiple of another.

    Args:
      layer: The layer.
      name: The name of the size.
      size: The size.
      divisor_name: The name of the other size.
      divisor: The other size.

    Raises:
      ArgumentError: If `divisor` does not divide `size`.
    """
    if divisor < 1 or size % divisor:
        raise errors.ArgumentError(
            f"{type(layer).__name__} needs {name} to be a multiple of {divisor_name}, but {name} is {size} and "
            f"{divisor_name} is {divisor}.",
            f"Pass a {name} that {divisor_name} divides.",
        )
