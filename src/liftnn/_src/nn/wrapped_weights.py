"""What layers share that normalize the weights of another layer: its Variables by path, and division by a norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from liftnn import errors
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.modules.module import Module
from liftnn._src.trees import Path, format_path
from liftnn._src.variables.variable import Variable


def variables_by_path(layer: Any, kind: type[Variable[Any]]) -> list[tuple[Path, Variable[Any]]]:
    """Return the Variables of a type that a layer holds, in the order of their paths.

    Args:
      layer: The layer.
      kind: The type.

    Returns:
      Pairs of path and Variable. The order does not depend on the order in which the constructor creates weights.
    """
    found = [(path, x) for path, x in iter_graph(layer) if isinstance(x, kind)]
    return sorted(found, key=lambda pair: [(isinstance(key, str), key) for key in pair[0]])


def check_layer(wrapper: str, layer: Any) -> None:
    """Raise ArgumentTypeError if what a wrapper gets as its layer cannot be called or has no Variables.

    Args:
      wrapper: Name of the wrapper's class.
      layer: The module, or a function that holds one.

    Raises:
      ArgumentTypeError: If it is neither.
    """
    if isinstance(layer, Module) or (
        callable(layer) and not isinstance(layer, type) and variables_by_path(layer, Variable)
    ):
        return
    kind = "class" if isinstance(layer, type) else "function"
    found = (
        f"the {kind} {layer.__name__}"
        if hasattr(layer, "__name__")
        else f"of type {type(layer).__qualname__}"
    )
    raise errors.ArgumentTypeError(
        f"{wrapper} normalizes the weights of a layer, but layer_instance is {found}.",
        f"Pass a layer, as in {wrapper}(liftnn.Linear(2, 3, rngs=rngs), rngs=rngs).",
    )


def divide_by_norm(x: jax.Array, axes: Sequence[int] | None, epsilon: float) -> jax.Array:
    """Divide an array by its Euclidean norm over some axes.

    Args:
      x: The array.
      axes: The axes; None means all.
      epsilon: A small constant added to the squared norm, for numerical stability.

    Returns:
      The array, of the same shape.
    """
    squared_norm = (x * x).sum(axis=None if axes is None else tuple(axes), keepdims=True)
    return x * lax.rsqrt(squared_norm + epsilon)


def new_weight_error(layer: str, path: Path) -> errors.StructureError:
    """Return the error for a weight that the wrapped layer did not have when the wrapper was created.

    Args:
      layer: Name of the wrapper's class.
      path: Path of the weight in the wrapped layer.

    Returns:
      The error to raise.
    """
    return errors.StructureError(
        f"{layer} has no entry for the weight layer_instance.{format_path(path)}: the wrapped layer did not have it "
        f"when the {layer} was created.",
        f"Create the {layer} again after you change the weights of the wrapped layer.",
    )
