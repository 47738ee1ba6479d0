"""A result as a compiled program returns it: only what was written, and the output ready to hand out."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from liftnn.graph.description import ARRAY
from liftnn.graph.merge import Change
from liftnn.lifting.result import Result
from liftnn.lifting.values import has_opaque


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """The static part of what one trace returns.

    Args:
      change: What was returned, made and changed.
      written: The slots of the Variables that were written.
      n_inputs: How many Variables there are.
      plain: Whether all leaves of the output are arrays, and all values JAX's own.
    """

    change: Change
    written: tuple[int, ...]
    n_inputs: int
    plain: bool


class Outcomes:
    """The outcomes of the traces of one program, by number.

    A program says with its result which of them applies: its result is `(out, {number: parts})`. JAX rebuilds a dict
    in C++, where a static node of our own would cost a call of Python each time.
    """

    def __init__(self) -> None:
        self.by_number: dict[int, Outcome] = {}
        self._numbers = itertools.count()

    def compact(self, result: Result) -> tuple[Any, dict[int, tuple[list[Any], list[Any], list[Any]]]]:
        """A result as a compiled program returns it.

        Args:
          result: The result.

        Returns:
          The output if it is all arrays, else a list of the arrays in it; and, under the number of the outcome, the new
          values of the written Variables, the bare arrays of changed and new nodes, the values of new Variables.
        """
        written = tuple([slot for slot, x in enumerate(result.updates) if x is not None])
        plain = all(e is ARRAY for e in result.change.edges) and not has_opaque((result.updates, result.new))
        number = next(self._numbers)
        self.by_number[number] = Outcome(result.change, written, len(result.updates), plain)
        count = sum(e is ARRAY for e in result.change.edges)
        out: Any = result.arrays[:count]
        if plain:
            out = result.change.treedef.unflatten(out)
        return out, {number: ([result.updates[i] for i in written], result.arrays[count:], result.new)}

    def expand(self, returned: Any) -> Result:
        """The inverse of `compact`."""
        out, parts = returned
        [(number, (updates, arrays, new))] = parts.items()
        outcome = self.by_number[number]
        every: list[Any] = [None] * outcome.n_inputs
        for slot, x in zip(outcome.written, updates, strict=True):
            every[slot] = x
        leaves = outcome.change.treedef.flatten_up_to(out) if outcome.plain else out
        return Result([*leaves, *arrays], list(new), every, outcome.change)
