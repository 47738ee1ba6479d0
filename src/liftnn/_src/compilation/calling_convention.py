"""The arguments of a compiled function: one for each Variable's value, then one for each tree of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from liftnn._src.compilation.patterns import units_of
from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.trees import same_tree

_LEAF = jax.tree.structure(0)


class OtherTreeError(TypeError):
    """Raised when the fast path has handed on a tree of another structure than the program was made for."""


class Inputs:
    """How dynamic leaves become the positional arguments of a compiled function, and the other way round.

    A unit is a tree of arrays as it stands among the user's arguments, or an array leaf of a node. All of a unit is
    donated, or nothing.

    Args:
      plan: The arguments.
      donated: The positions of the donated leaves.
      ranks: The order of the donated leaves: JAX pairs donated arguments with results in order, and XLA fails where
        a pair has two shardings, so arguments have the order of the results, by sharding. The default, None, is
        their own order.
    """

    def __init__(self, plan: Plan, donated: set[int], ranks: Sequence[int] | None = None):
        self.n_values = len(plan.variables)
        self._plan = plan
        self.donated_leaves = set(donated)
        self._ranks = ranks
        units = units_of(plan)
        starts = sum(treedef.num_leaves for treedef, _ in units)
        single = plan.slots[self.n_values + starts :]
        self._take_units(
            [*(treedef for treedef, _ in units), *[_LEAF] * len(single)],
            [*(name for _, name in units), *single],
        )

    def _take_units(self, trees: Sequence[Any], names: Sequence[str | Slot]) -> None:
        """Notes the structure of each unit; and its name or, of an array leaf, its slot."""
        self.tree = jax.tree_util.treedef_tuple(trees)
        self._names = names
        self._spans: list[range] = []
        start = self.n_values
        for tree in trees:
            self._spans.append(range(start, start := start + tree.num_leaves))
        self._arrange()

    def _arrange(self) -> None:
        """Sorts the arguments."""
        n = self.n_values
        spans = [*(range(i, i + 1) for i in range(n)), *self._spans]
        given = {i for i, span in enumerate(spans) if self.donated_leaves.issuperset(span)}
        self.order: Sequence[int] = range(n + len(self._spans))
        """Which of the values and units each argument is."""
        self.is_sorted = self._ranks is None
        """Whether that is their own order."""
        if self._ranks is not None:
            ranks = [self._ranks[span.start] if span else 0 for span in spans]
            self.order = [
                *sorted(given, key=lambda i: (ranks[i], i)),
                *(i for i in self.order if i not in given),
            ]
        self.donated = tuple([at for at, i in enumerate(self.order) if i in given])
        """Which of the arguments are donated."""

    def widen(self, donated: set[int]) -> None:
        """Donates more leaves."""
        self.donated_leaves |= donated
        self._arrange()

    def settle(self, leaves: Sequence[Any]) -> bool:
        """Takes array leaves one by one if their trees differ each time they are made; whether that is so.

        Args:
          leaves: The dynamic leaves of a call.
        """
        arrays = leaves[self.n_values :]
        trees = self.tree.unflatten(arrays)
        if same_tree(jax.tree.structure(trees), self.tree):
            return False
        names = [
            self._names[unit] for unit, span in enumerate(self._spans) for _ in span
        ]  # of the whole unit
        self._take_units([_LEAF] * len(arrays), names)
        return True

    def pack(self, leaves: Sequence[Any]) -> Sequence[Any]:
        """The arguments that dynamic leaves make."""
        return self.sort(leaves[: self.n_values], self.tree.unflatten(leaves[self.n_values :]))

    def pack_shardings(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """The same for shardings: one for a whole unit if it has only one, since its class may check its leaves."""
        trees = list[Any]()
        for tree, span in zip(self.tree.children(), self._spans, strict=True):
            own = leaves[span.start : span.stop]
            trees.append(own[0] if own and own.count(own[0]) == len(own) else tree.unflatten(own))
        return tuple(self.sort(leaves[: self.n_values], trees))

    def sort(self, values: Sequence[Any], units: Sequence[Any]) -> Sequence[Any]:
        """The arguments that values and units make."""
        every = [*values, *units]
        return every if self.is_sorted else [every[i] for i in self.order]

    def unpack(self, given: Sequence[Any]) -> list[Any]:
        """The dynamic leaves in arguments.

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
        return [*every[: self.n_values], *arrays]

    def complete(self, result: Result, leaves: Sequence[Any]) -> Result:
        """A result that returns every donated value, since its buffer is given away."""
        values = {Slot(n): leaves[i] for i, n in enumerate(self._plan.variables) if i in self.donated_leaves}
        missing = values.keys() - set(map(Slot, result.change.written))
        return result.write({slot: values[slot] for slot in missing}) if missing else result

    def name(self, position: int) -> str:
        """The path of an argument."""
        i = self.order[position]
        if i < self.n_values:
            return self._plan.path_of(self._plan.variables[i])
        name = self._names[i - self.n_values]
        return name if isinstance(name, str) else self._plan.name(name)
