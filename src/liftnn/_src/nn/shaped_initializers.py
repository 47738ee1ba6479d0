"""Initializers of matrices that draw the same values directly in another shape, without a whole matrix in between.

A kernel of several input and output axes is initialized as a matrix. Drawn as one and reshaped, a kernel that is
sharded along an axis other than the first of the inputs or outputs exists as a whole on each device: 256 MiB of
temporaries for a kernel of 64 MiB. JAX's random bits depend on the position in the flat array only, so the initializers
whose values depend on the position, the key and the numbers of inputs and outputs draw the same in any shape.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax

from liftnn._src.nn import initializers
from liftnn._src.nn.arguments import check_initializer
from liftnn._src.variables.annotated import annotate, annotation_of
from liftnn._src.variables.metadata import Annotated

Sizes = tuple[int, ...]

_BY_FANS = {"scale", "mode", "distribution", "in_axis", "out_axis", "batch_axis"}
"""What a function of `variance_scaling` closes over, besides names of JAX's own functions."""
_BY_POSITION = ("constant", "normal", "truncated_normal", "uniform")
"""Factories of initializers whose values do not depend on the shape."""


def initializer_of_shape(initializer: Callable[..., Any], rows: Sizes, columns: Sizes) -> Callable[..., Any]:
    """Return an initializer of arrays of shape `(*rows, *columns)` with the values of a matrix.

    Args:
      initializer: An initializer of matrices of shape `(prod(rows), prod(columns))`.
      rows: The sizes of the axes that are the rows of the matrix.
      columns: The sizes of the other axes.

    Returns:
      An initializer to be called with the shape `(*rows, *columns)`. It draws in this shape if it is known to draw the
      same values; otherwise it draws the matrix and reshapes it.

    Raises:
      ArgumentError: If the initializer is a function that makes one.
      ArgumentTypeError: If it is not a function.
    """
    flat = (math.prod(rows), math.prod(columns))
    return _with_metadata_of(
        initializer, lambda inner: _direct(inner, len(rows), len(columns)) or _reshaped(inner, flat)
    )


def initializer_of_vector(initializer: Callable[..., Any], sizes: Sizes) -> Callable[..., Any]:
    """Return an initializer of arrays with the values of a vector, likewise.

    Args:
      initializer: An initializer of vectors of shape `(prod(sizes),)`.
      sizes: The shape.

    Returns:
      An initializer to be called with this shape.

    Raises:
      ArgumentError: If the initializer is a function that makes one.
      ArgumentTypeError: If it is not a function.
    """
    flat = (math.prod(sizes),)
    return _with_metadata_of(
        initializer, lambda inner: inner if _is_by_position(inner) else _reshaped(inner, flat)
    )


def _with_metadata_of(
    initializer: Callable[..., Any], change: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[..., Any]:
    """Return a changed initializer with the metadata that the initializer gives its Variables."""
    check_initializer(initializer)
    annotation = annotation_of(initializer)
    if annotation is None:
        return change(initializer)
    inner, metadata = annotation
    return annotate(_with_metadata_of(inner, change), metadata)


def _is_by_position(initializer: Callable[..., Any]) -> bool:
    """Return whether the values of an initializer do not depend on the shape."""
    return initializer in (initializers.zeros, initializers.ones) or _factory_of(initializer) in _BY_POSITION


def _factory_of(initializer: Callable[..., Any]) -> str:
    """Return the name of JAX's function that made an initializer; an empty string for any other function."""
    factory, _, name = getattr(initializer, "__qualname__", "").partition(".<locals>.")
    is_of_jax = inspect.isfunction(initializer) and initializer.__module__.startswith("jax.")
    return factory if is_of_jax and name == "init" else ""


def _direct(initializer: Callable[..., Any], n_rows: int, n_columns: int) -> Callable[..., Any] | None:
    """Return an initializer that draws the values of a matrix in another shape; None if that is not known."""
    if _is_by_position(initializer):
        return initializer
    if _factory_of(initializer) != "variance_scaling":
        return None
    found = inspect.getclosurevars(initializer).nonlocals
    axes = (found.get("in_axis"), found.get("out_axis"), found.get("batch_axis"))
    if found.keys() - {"dtype"} != _BY_FANS or axes != (-2, -1, ()):
        return None
    return initializers.variance_scaling(
        found["scale"],
        found["mode"],
        found["distribution"],
        in_axis=range(n_rows),
        out_axis=range(n_rows, n_rows + n_columns),
    )


def _reshaped(initializer: Callable[..., Any], flat: Sizes) -> Callable[..., Any]:
    """Return an initializer that draws in a flat shape and reshapes."""

    def draw(key: jax.Array, shape: Sizes, dtype: Any) -> Any:
        drawn = initializer(key, flat, dtype)
        if type(drawn) is Annotated:
            return Annotated(drawn.value.reshape(shape), drawn.metadata)
        return drawn.reshape(shape)

    return draw
