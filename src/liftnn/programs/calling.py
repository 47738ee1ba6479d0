"""The arguments of a compiled function: one for each Variable's value, then one for each tree of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from liftnn.lifting.result import Plan
from liftnn.programs.patterns import units_of
from liftnn.trees import same_tree

_LEAF = jax.tree.structure(0)


class OtherTreeError(TypeError):
    """Raised when the fast path has handed on a tree of another structure than the program was made for."""


class Inputs:
    """How values and arrays become the positional arguments of a compiled function, and the other way round.

    A unit is a tree of arrays as it stands among the user's arguments, or an array leaf of a node. All of a unit is
    donated, or nothing.

    Args:
      plan: The arguments.
      values: The positions of the donated values.
      arrays: The positions of the donated array leaves.
      value_ranks: The order of the donated values: JAX pairs donated arguments with results in order, and XLA fails
        where a pair has two shardings, so arguments have the order of the results, by sharding. The default, None,
        is their own order.
      array_ranks: The same for array leaves.
    """

    def __init__(
        self,
        plan: Plan,
        values: set[int],
        arrays: set[int],
        value_ranks: Sequence[int] | None = None,
        array_ranks: Sequence[int] | None = None,
    ):
        self.values, self.arrays = set(values), arrays
        self.n_values = len(plan.variables)
        self._plan = plan
        self._ranks = None if value_ranks is None or array_ranks is None else (value_ranks, array_ranks)
        units = units_of(plan)
        starts = sum(treedef.num_leaves for treedef, _ in units)
        self._take_units(
            [*(treedef for treedef, _ in units), *[_LEAF] * (plan.n_arrays - starts)],
            [*(name for _, name in units), *range(starts, plan.n_arrays)],
        )

    def _take_units(self, trees: Sequence[Any], names: Sequence[str | int]) -> None:
        """Notes the structure of each unit; and its name or, of an array leaf, its position."""
        self.tree = jax.tree_util.treedef_tuple(trees)
        self._names = names
        self._spans: list[range] = []
        start = 0
        for tree in trees:
            self._spans.append(range(start, start := start + tree.num_leaves))
        self._arrange()

    def _arrange(self) -> None:
        """Sorts the arguments."""
        n = self.n_values
        given = {*self.values, *(n + i for i, span in enumerate(self._spans) if self.arrays.issuperset(span))}
        self.order: Sequence[int] = range(n + len(self._spans))
        """Which of the values and units each argument is."""
        self.is_sorted = self._ranks is None
        """Whether that is their own order."""
        if self._ranks is not None:
            ranks = [*self._ranks[0], *(self._ranks[1][s.start] if s else 0 for s in self._spans)]
            self.order = [
                *sorted(given, key=lambda i: (ranks[i], i)),
                *(i for i in self.order if i not in given),
            ]
        self.donated = tuple([at for at, i in enumerate(self.order) if i in given])
        """Which of the arguments are donated."""

    def widen(self, values: set[int]) -> None:
        """Donates more values."""
        self.values |= values
        self._arrange()

    def settle(self, arrays: Sequence[Any]) -> bool:
        """Takes array leaves one by one if their trees differ each time they are made; whether that is so.

        Args:
          arrays: The array leaves of a call.
        """
        trees = self.tree.unflatten(arrays)
        if same_tree(jax.tree.structure(trees), self.tree):
            return False
        names = [
            self._names[unit] for unit, span in enumerate(self._spans) for _ in span
        ]  # of the whole unit
        self._take_units([_LEAF] * len(arrays), names)
        return True

    def pack(self, values: Sequence[Any], arrays: Sequence[Any]) -> Sequence[Any]:
        """The arguments that values and array leaves make."""
        return self.sort(values, self.tree.unflatten(arrays))

    def pack_shardings(self, values: Sequence[Any], arrays: Sequence[Any]) -> tuple[Any, ...]:
        """The same for shardings: one for a whole unit if it has only one, since its class may check its leaves."""
        trees = list[Any]()
        for tree, span in zip(self.tree.children(), self._spans, strict=True):
            own = arrays[span.start : span.stop]
            trees.append(own[0] if own and own.count(own[0]) == len(own) else tree.unflatten(own))
        return tuple(self.sort(values, trees))

    def sort(self, values: Sequence[Any], units: Sequence[Any]) -> Sequence[Any]:
        """The arguments that values and units make."""
        every = [*values, *units]
        return every if self.is_sorted else [every[i] for i in self.order]

    def unpack(self, given: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The values and array leaves in arguments.

        Raises:
          OtherTreeError: If a unit has another structure.
        """
        if len(given) != len(self.order):
            raise OtherTreeError
        every: list[Any] = [None] * len(given)
        for i, x in zip(self.order, given, strict=True):
            every[i] = x
        arrays, tree = jax.tree.flatten(tuple(every[self.n_values :]))
        if not same_tree(tree, self.tree):
            raise OtherTreeError
        return every[: self.n_values], arrays

    def complete(self, updates: Sequence[Any], values: Sequence[Any]) -> list[Any]:
        """The updates, with the value itself where a donated one has none: its buffer is given away."""
        pairs = enumerate(zip(updates, values, strict=True))
        return [value if update is None and i in self.values else update for i, (update, value) in pairs]

    def name(self, position: int) -> str:
        """The path of an argument."""
        i = self.order[position]
        if i < self.n_values:
            return self._plan.path_of(self._plan.variables[i])
        name = self._names[i - self.n_values]
        return name if isinstance(name, str) else self._plan.array_name(name)
