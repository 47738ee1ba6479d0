"""A result as a compiled program returns it: only what was written, and the output ready to hand out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from liftnn.graph.description import ARRAY
from liftnn.graph.merge import Change
from liftnn.lifting.result import Result
from liftnn.lifting.values import has_opaque


class Outcome:
    """The static part of what one trace returns. Compared by identity: each trace makes its own.

    Args:
      change: What was returned, made and changed.
      written: The slots of the Variables that were written.
      n_inputs: How many Variables there are.
      plain: Whether all leaves of the output are arrays, and all values JAX's own.
    """

    __slots__ = ("change", "n_inputs", "plain", "written")

    def __init__(self, change: Change, written: tuple[int, ...], n_inputs: int, plain: bool):
        self.change = change
        self.written = written
        self.n_inputs = n_inputs
        self.plain = plain

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Outcome) and self._key() == other._key())

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return self.change, self.written, self.n_inputs


jax.tree_util.register_static(Outcome)


def compact(result: Result) -> tuple[Any, list[Any], tuple[list[Any], list[Any]], Outcome]:
    """A result as a compiled program returns it.

    Args:
      result: The result.

    Returns:
      The output if it is all arrays, else a list of the arrays in it; new values of the written Variables; bare
      arrays of changed and new nodes, with the values of new Variables; and the static part. A plain tuple, which
      JAX is quick to rebuild.
    """
    written = tuple([slot for slot, x in enumerate(result.updates) if x is not None])
    plain = all(e is ARRAY for e in result.change.edges) and not has_opaque((result.updates, result.new))
    outcome = Outcome(result.change, written, len(result.updates), plain)
    count = sum(e is ARRAY for e in result.change.edges)
    out: Any = result.arrays[:count]
    if outcome.plain:
        out = result.change.treedef.unflatten(out)
    return out, [result.updates[i] for i in written], (result.arrays[count:], result.new), outcome


def expand(returned: Sequence[Any]) -> Result:
    """The inverse of `compact`."""
    out, updates, (arrays, new), outcome = returned
    every: list[Any] = [None] * outcome.n_inputs
    for slot, x in zip(outcome.written, updates, strict=True):
        every[slot] = x
    leaves = outcome.change.treedef.flatten_up_to(out) if outcome.plain else out
    return Result([*leaves, *arrays], list(new), every, outcome.change)
