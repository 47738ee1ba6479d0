"""The compact form in which a compiled program returns a result: the output, and only the leaves that were written.

A program can be traced several times, and each trace may return another structure. The static part of what one trace
returns is an `OutputSpec`; `OutputSpecs` numbers those of a program. `compact` converts a result to the returned form,
and `expand` is its inverse.
"""

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
      change: The static description of what was returned, created and changed.
      plain: Whether all leaves of the output are arrays, and no value is encoded.
      layout: The position of each leaf, if the result is returned in one list for each sharding.
    """

    change: GraphDelta
    plain: bool
    layout: Layout | None = None


class OutputSpecs:
    """The `OutputSpec` of each trace of one program, by number; equal ones have one number.

    A program returns `(parts, out)`, followed by as many None as the number of its `OutputSpec`. This encoding is the
    fastest: JAX rebuilds a None for almost no cost, while a dict costs 0.7 us and a static pytree node of our own a
    call of Python. Nearly always there is only number 0. If the result with number 0 is a single array without parts,
    the program returns just that array.

    Written values come before the output, in the order of the inputs: JAX gives a donated buffer to the first result
    with its shape and dtype, and a value is best computed in the buffer of the one that it replaces.

    Args:
      grouped: Whether results are grouped into one list for each sharding.
    """

    def __init__(self, grouped: bool) -> None:
        self._grouped = grouped
        self._specs: list[OutputSpec] = []
        self._lock = threading.Lock()

    def compact(self, result: Result) -> Any:
        """Convert a result to the form that a compiled program returns.

        Args:
          result: The result.

        Returns:
          A tuple: the list of the leaves that are not part of the output, or None if there are none; the output if all
          its leaves are arrays, else the list of its arrays; then as many None as the number of the `OutputSpec`. Just
          the output if it is a single array, there are no other leaves, and the number is 0.
        """
        change, out = result.change, result.output
        parts, plain = result.leaves[len(out) :], _is_plain(result)
        number = self._add(OutputSpec(change, plain))
        returned: Any = change.treedef.unflatten(out) if plain else out
        if number == 0 and plain and not parts and is_leaf_tree(change.treedef):
            return returned
        return parts or None, returned, *[None] * number

    def compact_groups(self, groups: Any, layout: Layout, result: Result) -> tuple[Any, tuple[None, ...]]:
        """Convert a result that is grouped into one list for each sharding.

        Args:
          groups: The lists.
          layout: The position of each leaf in the lists.
          result: The result.

        Returns:
          The lists, and as many None as the number of the `OutputSpec`.
        """
        return groups, (None,) * self._add(OutputSpec(layout.change, _is_plain(result), layout))

    def _add(self, spec: OutputSpec) -> int:
        """Return the number of an `OutputSpec`; a new number if no equal one is known."""
        with self._lock:
            number = self._find(spec)
            if number == len(self._specs):
                self._specs.append(spec)
            return number

    def _find(self, spec: OutputSpec) -> int:
        """Return the number of an `OutputSpec`; their count if no equal one is known."""
        for number, known in enumerate(self._specs):
            # JAX considers {1: x} and {True: x} equal trees, but their texts differ
            if same_tree(known, spec) and str(known.change.treedef) == str(spec.change.treedef):
                return number
        return len(self._specs)

    def number_of(self, returned: Any) -> int:
        """Return the number of the `OutputSpec` that describes the returned value of a program."""
        if self._grouped:
            return len(returned[1])
        return len(returned) - 2 if type(returned) is tuple else 0

    def __getitem__(self, number: int) -> OutputSpec:
        return self._specs[number]

    def expand(self, returned: Any) -> Result:
        """Rebuild the result from a returned value: the inverse of `compact` and `compact_groups`."""
        spec = self[self.number_of(returned)]
        if spec.layout is not None:
            return ungroup(returned[0], spec.layout)
        out, parts = split_output(returned)
        return Result([*(jax.tree.leaves(out) if spec.plain else out), *parts], spec.change)


def _is_plain(result: Result) -> bool:
    """Return whether all leaves of the output are arrays, and no value is encoded."""
    return all(e is ARRAY for e in result.change.edges) and not has_encoded(result.leaves)


def split_output(returned: Any) -> tuple[Any, list[Any]]:
    """Return the output and the other leaves in the returned value of a program without groups."""
    return (returned[1], returned[0] or []) if type(returned) is tuple else (returned, [])
