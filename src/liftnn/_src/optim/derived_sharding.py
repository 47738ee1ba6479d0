"""The sharding of what an optimizer keeps for a parameter in another shape: factors, memories, maxima along axes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

from liftnn._src.variables.variable import Variable

ArrayShape = tuple[int, ...]


def derive_sharding(
    entries: Sequence[Any], parameter: ArrayShape, shape: ArrayShape, rank: int | None
) -> Any:
    """Return what an array declares that an optimizer keeps for a parameter.

    Args:
      entries: What the parameter declares for each of its axes.
      parameter: The shape of the parameter.
      shape: The shape of the array.
      rank: The rank of the axis that a factor lacks; see `find_factors`. None if the array is not a factor.

    Returns:
      An entry for each axis: those of the axes that are left, None for an axis of size 1 in place of one and for new
      axes in front. None if the array has no such shape, or several choices of axes would differ.
    """
    entries = (*entries, *(None,) * (len(parameter) - len(entries)))
    if len(shape) >= len(parameter):
        extra = len(shape) - len(parameter)
        sizes = list(zip(shape[extra:], parameter, strict=True))
        if not all(size in (1, whole) for size, whole in sizes):
            return None
        return (None,) * extra + tuple(
            [e if size == whole else None for e, (size, whole) in zip(entries, sizes, strict=True)]
        )
    choices = list(itertools.combinations(range(len(parameter)), len(shape)))
    if rank is not None and len(shape) == len(parameter) - 1 and len(parameter) > 1:
        lacked = int(np.argsort(parameter)[rank])
        choices = [tuple([i for i in range(len(parameter)) if i != lacked])]
    found = {
        tuple([entries[i] for i in chosen])
        for chosen in choices
        if tuple([parameter[i] for i in chosen]) == shape
    }
    return found.pop() if len(found) == 1 else None


def find_factors(tree: Any) -> dict[int, int]:
    """Find factored statistics, as those of `optax.adafactor`.

    Args:
      tree: The state of a transformation.

    Returns:
      By the id of each array or Variable, the rank among the sizes of the parameter of the axis that it lacks: rows
      lack the largest (-1), columns the second largest (-2).
    """
    found: dict[int, int] = {}
    for node in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, optax.FactoredState)):
        if isinstance(node, optax.FactoredState):
            for statistics, rank in ((node.v_row, -1), (node.v_col, -2)):
                leaves = jax.tree.leaves(statistics, is_leaf=lambda x: isinstance(x, Variable))
                found.update((id(x), rank) for x in leaves)
    return found
