"""The positional arguments of a compiled function: one for each Variable's value, then one for each tree of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from liftnn._src.compilation.patterns import units_of
from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.trees import LEAF, children_with_leaves, same_tree


class OtherTreeError(TypeError):
    """Raised when the fast path has passed a tree with another structure than the program was compiled for."""


class Inputs:
    """The conversion between dynamic leaves and the positional arguments of a compiled function: `pack` and `unpack`.

    A unit is a tree of arrays that the user passed, or an array leaf of a node. A unit is donated as a whole or not at
    all.

    Args:
      plan: The arguments.
      donated: The positions of the donated leaves.
      ranks: The sort key of each leaf among the donated ones. JAX pairs donated arguments with results in order, and
        XLA fails if the two have different shardings, so donated arguments are sorted by sharding like the results.
        The default, None, keeps their order.
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
            [*(treedef for treedef, _ in units), *[LEAF] * len(single)],
            [*(name for _, name in units), *single],
        )

    def _take_units(self, trees: Sequence[Any], names: Sequence[str | Slot]) -> None:
        """Record the structure of each unit, and its name (or the slot of an array leaf)."""
        self.tree = jax.tree_util.treedef_tuple(trees)
        self._names = names
        self._spans = [leaves for _, leaves in children_with_leaves(self.tree, self.n_values)]
        self._arrange()

    def _arrange(self) -> None:
        """Sort the arguments."""
        n = self.n_values
        spans = [*(range(i, i + 1) for i in range(n)), *self._spans]
        leaves = self.donated_leaves
        donated = {i for i, span in enumerate(spans) if leaves.issuperset(span)} if leaves else set[int]()
        self.order: Sequence[int] = range(n + len(self._spans))
        """The index of each argument among the values and units."""
        self.is_sorted = self._ranks is None
        """Whether the arguments have the order of the values and units."""
        if self._ranks is not None:
            ranks = [self._ranks[span.start] if span else 0 for span in spans]
            self.order = [
                *sorted(donated, key=lambda i: (ranks[i], i)),
                *(i for i in self.order if i not in donated),
            ]
        self.donated = tuple([at for at, i in enumerate(self.order) if i in donated])
        """The positions of the donated arguments."""

    def widen(self, donated: set[int]) -> None:
        """Donate more leaves."""
        self.donated_leaves |= donated
        self._arrange()

    def settle(self, leaves: Sequence[Any]) -> bool:
        """Make each array leaf its own unit if the trees are unstable; return whether they are.

        A tree is unstable if it differs each time it is unflattened, for example because of its metadata.

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
        self._take_units([LEAF] * len(arrays), names)
        return True

    def pack(self, leaves: Sequence[Any]) -> Sequence[Any]:
        """Convert dynamic leaves to arguments."""
        return self.sort(leaves[: self.n_values], self.tree.unflatten(leaves[self.n_values :]))

    def pack_shardings(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """Convert shardings of leaves to shardings of arguments.

        A unit with equal shardings gets a single one, since its class may check its leaves when a tree is rebuilt.
        """
        trees = list[Any]()
        for tree, span in zip(self.tree.children(), self._spans, strict=True):
            shardings = leaves[span.start : span.stop]
            is_single = bool(shardings) and shardings.count(shardings[0]) == len(shardings)
            trees.append(shardings[0] if is_single else tree.unflatten(shardings))
        return tuple(self.sort(leaves[: self.n_values], trees))

    def sort(self, values: Sequence[Any], units: Sequence[Any]) -> Sequence[Any]:
        """Bring values and units into the order of the arguments."""
        every = [*values, *units]
        return every if self.is_sorted else [every[i] for i in self.order]

    def unpack(self, arguments: Sequence[Any]) -> list[Any]:
        """Convert arguments to dynamic leaves: the inverse of `pack`.

        Raises:
          OtherTreeError: If a unit has another structure.
        """
        if len(arguments) != len(self.order):
            raise OtherTreeError
        every: list[Any] = [None] * len(arguments)
        for i, x in zip(self.order, arguments, strict=True):
            every[i] = x
        arrays, tree = jax.tree.flatten(tuple(every[self.n_values :]))
        if not same_tree(tree, self.tree):
            raise OtherTreeError
        return [*every[: self.n_values], *arrays]

    def complete(self, result: Result, leaves: Sequence[Any]) -> Result:
        """Add every donated value to a result, since the caller's buffer is deleted."""
        values = {Slot(n): leaves[i] for i, n in enumerate(self._plan.variables) if i in self.donated_leaves}
        missing = values.keys() - set(map(Slot, result.change.written))
        return result.write({slot: values[slot] for slot in missing}) if missing else result

    def name(self, position: int) -> str:
        """Return the path of an argument."""
        i = self.order[position]
        if i < self.n_values:
            return self._plan.path_of(self._plan.variables[i])
        name = self._names[i - self.n_values]
        return name if isinstance(name, str) else self._plan.name(name)
