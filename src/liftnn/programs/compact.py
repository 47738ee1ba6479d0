"""A result as a compiled program returns it: only what was written, and the output ready to hand out."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import jax

from liftnn.axes.prefix import Layout, ungroup
from liftnn.graph.description import ARRAY
from liftnn.graph.merge import Change
from liftnn.lifting.result import Result
from liftnn.lifting.values import has_encoded
from liftnn.trees import same_tree


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """The static part of what one trace returns.

    Args:
      change: What was returned, made and changed.
      written: The slots of the Variables that were written.
      first_new: How many of the parts come before the values of new Variables.
      n_inputs: How many Variables there are.
      plain: Whether all leaves of the output are arrays, and all values JAX's own.
      layout: Where each part is, if the result comes in one list for each sharding.
    """

    change: Change
    written: tuple[int, ...]
    first_new: int
    n_inputs: int
    plain: bool
    layout: Layout | None = None


class Outcomes:
    """The outcomes of the traces of one program, by number.

    A program says with its result which of them applies: its result is `(out, parts)`, followed by as many None as the
    number says. To rebuild a None costs JAX next to nothing, a dict 0.7 us, a static node of our own a call of Python;
    and nearly always there is but one outcome, number 0.
    """

    def __init__(self) -> None:
        self._outcomes: list[Outcome] = []
        self._lock = threading.Lock()

    def compact(self, result: Result) -> tuple[Any, ...]:
        """A result as a compiled program returns it.

        Args:
          result: The result.

        Returns:
          The output if it is all arrays, else a list of the arrays in it; one list of the new values of the written
          Variables, the bare arrays of changed and new nodes, and the values of new Variables, or None if there are
          none; and None so often that the length of all tells the outcome.
        """
        written = tuple([slot for slot, x in enumerate(result.updates) if x is not None])
        plain = all(e is ARRAY for e in result.change.edges) and not has_encoded((result.updates, result.new))
        count = sum(e is ARRAY for e in result.change.edges)
        out: Any = result.arrays[:count]
        if plain:
            out = result.change.treedef.unflatten(out)
        updates = [result.updates[i] for i in written]
        arrays = result.arrays[count:]
        outcome = Outcome(result.change, written, len(updates) + len(arrays), len(result.updates), plain)
        return out, [*updates, *arrays, *result.new] or None, *[None] * self._number_of(outcome)

    def compact_groups(self, groups: Any, layout: Layout, result: Result) -> tuple[Any, tuple[None, ...]]:
        """A result that comes in one list for each sharding.

        Args:
          groups: The lists.
          layout: Where each part is.
          result: The result that they are made of.

        Returns:
          The lists, and None so often that their number tells the outcome.
        """
        written = tuple([slot for slot, x in enumerate(result.updates) if x is not None])
        plain = all(e is ARRAY for e in layout.change.edges) and not has_encoded((result.updates, result.new))
        outcome = Outcome(layout.change, written, 0, len(result.updates), plain, layout)
        return groups, (None,) * self._number_of(outcome)

    def _number_of(self, outcome: Outcome) -> int:
        """The number of an outcome, which is a new one if there was none like it."""
        with self._lock:
            for number, known in enumerate(self._outcomes):
                # JAX takes {1: x} and {True: x} for equal trees, their texts differ
                if same_tree(known, outcome) and str(known.change.treedef) == str(outcome.change.treedef):
                    return number
            self._outcomes.append(outcome)
            return len(self._outcomes) - 1

    def of(self, returned: tuple[Any, ...], grouped: bool) -> Outcome:
        """The outcome that what a program returned belongs to."""
        return self._outcomes[len(returned[1]) if grouped else len(returned) - 2]

    def expand(self, returned: tuple[Any, ...]) -> Result:
        """The inverse of `compact`."""
        outcome = self.of(returned, grouped=False)
        out, parts = returned[0], returned[1] or []
        every: list[Any] = [None] * outcome.n_inputs
        for slot, x in zip(outcome.written, parts, strict=False):
            every[slot] = x
        leaves = jax.tree.leaves(out) if outcome.plain else out
        arrays = parts[len(outcome.written) : outcome.first_new]
        return Result([*leaves, *arrays], parts[outcome.first_new :], every, outcome.change)

    def expand_groups(self, returned: tuple[Any, ...]) -> Result:
        """The inverse of `compact_groups`."""
        layout = self.of(returned, grouped=True).layout
        assert layout is not None
        return ungroup(returned[0], layout)
