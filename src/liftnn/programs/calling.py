"""The form in which a compiled function takes its arguments: trees of arrays, perhaps apart from what is donated."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax

from liftnn.lifting.result import Plan
from liftnn.programs.patterns import units_of
from liftnn.trees import make_picker

_LEAF = jax.tree.structure(0)


class OtherTreeError(TypeError):
    """Raised when the fast path has handed on a tree of another structure than the program was made for."""


def argument_trees(plan: Plan) -> tuple[Any, list[str | int]]:
    """The tree in which the array leaves go to a compiled function: the units of the arguments, then those of nodes.

    Args:
      plan: The arguments.

    Returns:
      The tree; and for each of its children the name of the part of the arguments or, of an array leaf of a node, its
      position.
    """
    units = units_of(plan)
    others = range(
        sum(treedef.num_leaves for treedef, _ in units), plan.n_arrays
    )  # of a partial, and of nodes
    trees = [*(treedef for treedef, _ in units), *[_LEAF] * len(others)]
    return jax.tree_util.treedef_tuple(trees), [*(name for _, name in units), *others]


class Division:
    """Divides a sequence in two, and puts it together again.

    Args:
      first: For each element whether it belongs to the first part.
      ranks: The order of the first part: JAX pairs donated arguments with results in order, and XLA fails where a pair
        has two shardings, so arguments have the order of the results, by sharding.
    """

    def __init__(self, first: Sequence[bool], ranks: Sequence[int]):
        self._ranks = ranks
        self._first = [False] * len(first)
        self.widen(first)

    def widen(self, first: Sequence[bool]) -> None:
        """Takes more elements into the first part."""
        self._first = [a or b for a, b in zip(self._first, first, strict=True)]
        self.places = [[i for i, f in enumerate(self._first) if f is which] for which in (True, False)]
        self.places[0].sort(key=self._ranks.__getitem__)
        self.pick = [make_picker(places) for places in self.places]

    def complete(self, updates: Sequence[Any], values: Sequence[Any]) -> list[Any]:
        """The updates, with the value itself where an element of the first part has none: its buffer is given away."""
        chosen = zip(updates, values, self._first, strict=True)
        return [value if update is None and first else update for update, value, first in chosen]

    def join(self, first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
        """The whole, from its two parts."""
        joined: list[Any] = [None] * len(self._first)
        for place, x in zip(itertools.chain(*self.places), (*first, *second), strict=True):
            joined[place] = x
        return joined
