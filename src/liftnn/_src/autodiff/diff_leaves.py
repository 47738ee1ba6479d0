"""What is differentiated: a flat list for JAX, and for the user trees that have a State in place of each module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.contract import Argument, Plan
from liftnn._src.lifting.values import decode
from liftnn._src.trees import Path
from liftnn._src.variables import frames
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import make_variable


class DiffLeaves:
    """The dynamic leaves that are differentiated, each once: a flat list for JAX, and trees for the user.

    Two are equal if they choose the same leaves of the same structure.

    Args:
      plan: The arguments.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.positions: dict[Slot, int] = {}
        """The position in the flat list of each slot."""
        self.arguments: list[tuple[Argument, tuple[Any, ...]]] = []
        """For each leaf of an argument its position in the list; pairs of path and position for a module; or None."""

    def _key(self) -> Any:
        return self.plan.graph, tuple(self.positions), tuple(self.arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DiffLeaves) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def add(self, slot: Slot) -> int:
        """Adds the leaf at a slot; returns its position in the list."""
        return self.positions.setdefault(slot, len(self.positions))

    def take(self, leaves: Sequence[Any]) -> list[Any]:
        """What is differentiated, of all dynamic leaves."""
        return [leaves[self.plan.index[slot]] for slot in self.positions]

    def put(self, diff: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
        """All dynamic leaves, those in `diff` replaced unless they are None there: the inverse of `take`."""
        found = dict(zip(self.positions, diff, strict=True))
        pairs = zip(self.plan.slots, leaves, strict=True)
        return [x if found.get(slot) is None else found[slot] for slot, x in pairs]

    def name_of(self, position: int) -> str:
        """The attribute path of a leaf."""
        return self.plan.name(list(self.positions)[position])

    def leaves(self, diff: Sequence[Any], box: Callable[[int, Any], Any]) -> list[list[Any]]:
        """What stands in place of each leaf of each argument: of an array one of `diff`, of a module a State.

        Args:
          diff: Gradients or the like, by position; None for what has none.
          box: Makes the State's entry for a Variable, from its number and one of `diff`.

        Returns:
          The leaves of each argument. A shared Variable stands once, in the first State.
        """
        slots = list(self.positions)
        taken: set[int] = set()

        def one(leaf: Any) -> Any:
            if not isinstance(leaf, tuple):
                return None if leaf is None else diff[leaf]
            entries: dict[Path, Any] = {}
            for path, at in leaf:
                if at in taken or diff[at] is None:
                    continue
                taken.add(at)
                is_value = self.plan.index[slots[at]] < len(self.plan.variables)
                entries[path] = box(slots[at].node, diff[at]) if is_value else diff[at]
            return entries[()] if () in entries else join(entries)

        return [[one(leaf) for leaf in leaves] for _, leaves in self.arguments]

    def trees(self, diff: Sequence[Any]) -> list[Any]:
        """The gradient, or the like, of each argument: its tree, with a State in place of each module.

        Args:
          diff: The gradients by position; None for what has none.

        Returns:
          The trees; the Variables in a State have their types and metadata.
        """
        owner = frames.owner_now()

        def box(number: int, x: Any) -> Any:
            cls = self.plan.graph.specs[number].type
            return make_variable(cls, decode(x), self.plan.metadata_of(number), owner)

        leaves = self.leaves(diff, box)
        return [a.treedef.unflatten(x) for (a, _), x in zip(self.arguments, leaves, strict=True)]


def join(entries: dict[Path, Any]) -> State:
    """A State of what stands at some paths; a State there continues the path."""
    leaves: dict[Path, Any] = {}
    for path, x in entries.items():
        leaves |= {(*path, *p): y for p, y in x.flat().items()} if isinstance(x, State) else {path: x}
    return State.from_flat(leaves)


def dtype_of(x: Any) -> Any:
    """The dtype of a leaf as JAX sees it."""
    return x.dtype if getattr(x, "dtype", None) == jax.dtypes.float0 else jnp.result_type(x)


def is_inexact(x: Any) -> bool:
    """Whether a leaf is of floating point or complex dtype."""
    return jnp.issubdtype(dtype_of(x), jnp.inexact)
