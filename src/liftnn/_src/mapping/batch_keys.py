"""Random keys for the elements of a mapped axis: each element has its own, and the stream never draws any of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from liftnn._src.lifting.contract import Plan
from liftnn._src.prefixes.prefix import Prefix
from liftnn._src.variables.variable_types import RngKey

_ELEMENTS = np.uint32(2**32 - 1)
"""Folded into a stream's key to make the keys of batch elements: a number that its count never reaches."""


def element_keys(key: Any, size: int) -> Any:
    """Return keys for the elements of a mapped axis that the stream itself never draws.

    Args:
      key: A typed key array of any shape.
      size: The number of elements.

    Returns:
      Keys of shape `(size, *key.shape)`.
    """

    def one(key: Any) -> Any:
        return jax.random.split(jax.random.fold_in(key, _ELEMENTS), size)

    for axis in range(key.ndim):
        del axis
        one = jax.vmap(one, out_axes=1)
    return one(key)


def split_shared_keys(
    plan: Plan, leaves: Sequence[Any], axes: Sequence[Prefix], size: int | None
) -> tuple[list[Any], list[Prefix]]:
    """Replace each shared key by one key for each batch element.

    Args:
      plan: The arguments.
      leaves: The dynamic leaves.
      axes: The axis of each leaf; None if it is shared.
      size: The number of batch elements. None leaves everything unchanged.

    Returns:
      Leaves and axes, with the batch elements' keys stacked along axis 0.
    """
    leaves, axes = list(leaves), list(axes)
    if size is not None:
        for i in shared_keys(plan, leaves, axes):
            leaves[i], axes[i] = element_keys(leaves[i], size), 0
    return leaves, axes


def shared_keys(plan: Plan, leaves: Sequence[Any], axes: Sequence[Prefix]) -> list[int]:
    """Return the positions of the random keys without an axis."""
    pairs = enumerate(zip(plan.types, leaves, axes, strict=True))
    return [
        i for i, (cls, x, axis) in pairs if issubclass(cls, RngKey) and axis is None and jax.tree.leaves(x)
    ]


def axis_size_of(leaves: Sequence[Any], axes: Sequence[Prefix]) -> int | None:
    """Return the size of the mapped axis, from the first mapped array.

    Args:
      leaves: Arrays, or pytrees of them.
      axes: The axis of each leaf.

    Returns:
      The size; None if no array is mapped, or if the first one does not have its axis.
    """
    for value, axis in zip(leaves, axes, strict=True):
        if isinstance(axis, int):
            for leaf in jax.tree.leaves(value):
                shape = np.shape(leaf)
                return shape[axis] if -len(shape) <= axis < len(shape) else None
    return None
