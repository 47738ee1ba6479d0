"""The random keys of the lanes of a mapped axis: each lane has its own, and none is ever drawn elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from liftnn.axes.prefix import Prefix
from liftnn.lifting.result import Plan
from liftnn.variables.variable_types import RngKey

_LANES = np.uint32(2**32 - 1)
"""Folded into a stream's key to make the lanes' keys: a number that its count never reaches."""


def lane_keys(key: Any, size: int) -> Any:
    """Keys for the lanes of a mapped axis, none of which the stream itself will ever give out.

    Args:
      key: A typed key array of any shape.
      size: How many lanes.

    Returns:
      Keys of shape `(size, *key.shape)`.
    """

    def one(key: Any) -> Any:
        return jax.random.split(jax.random.fold_in(key, _LANES), size)

    for axis in range(key.ndim):
        del axis
        one = jax.vmap(one, out_axes=1)
    return one(key)


def split_shared_keys(
    plan: Plan, values: Sequence[Any], axes: Sequence[Prefix], size: int | None
) -> tuple[list[Any], list[Prefix]]:
    """Gives each lane its own keys in place of the shared ones.

    Args:
      plan: The arguments.
      values: The values of the Variables.
      axes: The axis of each; None for those that the lanes share.
      size: How many lanes. None leaves everything as it is.

    Returns:
      Values and axes, in which a shared key is replaced by one for each lane along axis 0.
    """
    values, axes = list(values), list(axes)
    for i, cls in enumerate(plan.types):
        if size is not None and issubclass(cls, RngKey) and axes[i] is None and jax.tree.leaves(values[i]):
            values[i], axes[i] = lane_keys(values[i], size), 0
    return values, axes


def count_lanes(values: Sequence[Any], axes: Sequence[Prefix]) -> int | None:
    """The number of lanes, from the first mapped array.

    Args:
      values: Arrays, or pytrees of them.
      axes: The axis of each.

    Returns:
      The size of the first one's axis; None if none is mapped, or if that has no such axis.
    """
    for value, axis in zip(values, axes, strict=True):
        if isinstance(axis, int):
            for leaf in jax.tree.leaves(value):
                shape = np.shape(leaf)
                return shape[axis] if -len(shape) <= axis < len(shape) else None
    return None
