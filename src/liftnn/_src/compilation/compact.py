"""A result as a compiled program returns it: only what was written, and the output ready to hand out."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import jax

from liftnn._src.graph.merge import GraphDelta
from liftnn._src.graph.slots import ARRAY
from liftnn._src.lifting.contract import Result
from liftnn._src.lifting.values import has_encoded
from liftnn._src.prefixes.groups import Layout, ungroup
from liftnn._src.trees import is_leaf_tree, same_tree


@dataclasses.dataclass(frozen=True, slots=True)
class OutputSpec:
    """The static part of what one trace returns.

    Args:
      change: What was returned, made and changed.
      plain: Whether all leaves of the output are arrays, and all values JAX's own.
      layout: Where each leaf is, if the result comes in one list for each sharding.
    """

    change: GraphDelta
    plain: bool
    layout: Layout | None = None


class OutputSpecs:
    """The outcomes of the traces of one program, by number.

    A program says with its result which of them applies: its result is `(out, parts)`, followed by as many None as the
    number says. To rebuild a None costs JAX next to nothing, a dict 0.7 us, a static node of our own a call of Python;
    and nearly always there is but one outcome, number 0. Where that one is a single array and no part, it is returned
    as it is.
    """

    def __init__(self) -> None:
        self._outcomes: list[OutputSpec] = []
        self._lock = threading.Lock()

    def compact(self, result: Result) -> Any:
        """A result as a compiled program returns it.

        Args:
          result: The result.

        Returns:
          The output if it is all arrays, else a list of the arrays in it; a list of the other leaves, or None if there
          are none; and None so often that the length of all tells the outcome. Just the output, if it is a single
          array, there is nothing else, and the outcome is number 0.
        """
        change, out = result.change, result.output
        parts, plain = result.leaves[len(out) :], _is_plain(result)
        number = self._add(OutputSpec(change, plain))
        returned: Any = change.treedef.unflatten(out) if plain else out
        if number == 0 and plain and not parts and is_leaf_tree(change.treedef):
            return returned
        return returned, parts or None, *[None] * number

    def compact_groups(self, groups: Any, layout: Layout, result: Result) -> tuple[Any, tuple[None, ...]]:
        """A result that comes in one list for each sharding.

        Args:
          groups: The lists.
          layout: Where each leaf is.
          result: The result that they are made of.

        Returns:
          The lists, and None so often that their number tells the outcome.
        """
        return groups, (None,) * self._add(OutputSpec(layout.change, _is_plain(result), layout))

    def _add(self, outcome: OutputSpec) -> int:
        """The number of an outcome, which is a new one if there was none like it."""
        with self._lock:
            for number, known in enumerate(self._outcomes):
                # JAX takes {1: x} and {True: x} for equal trees, their texts differ
                if same_tree(known, outcome) and str(known.change.treedef) == str(outcome.change.treedef):
                    return number
            self._outcomes.append(outcome)
            return len(self._outcomes) - 1

    def number_of(self, returned: Any, grouped: bool) -> int:
        """The number of the outcome that what a program returned belongs to."""
        if grouped:
            return len(returned[1])
        return len(returned) - 2 if type(returned) is tuple else 0

    def __getitem__(self, number: int) -> OutputSpec:
        return self._outcomes[number]

    def expand(self, returned: Any) -> Result:
        """The inverse of `compact`."""
        outcome = self[self.number_of(returned, grouped=False)]
        out, parts = split_output(returned)
        return Result([*(jax.tree.leaves(out) if outcome.plain else out), *parts], outcome.change)

    def expand_groups(self, returned: tuple[Any, ...]) -> Result:
        """The inverse of `compact_groups`."""
        layout = self[self.number_of(returned, grouped=True)].layout
        assert layout is not None
        return ungroup(returned[0], layout)


def _is_plain(result: Result) -> bool:
    """Whether all leaves of the output are arrays, and all values JAX's own."""
    return all(e is ARRAY for e in result.change.edges) and not has_encoded(result.leaves)


def split_output(returned: Any) -> tuple[Any, list[Any]]:
    """The output and the parts in what a program returned, if that is not in lists by sharding."""
    return (returned[0], returned[1] or []) if type(returned) is tuple else (returned, [])
