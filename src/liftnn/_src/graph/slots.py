"""The address of one dynamic leaf: the value of a Variable, an array leaf of a node, or a leaf of a tree.

The nodes of a graph are numbered, and known nodes keep their numbers in a call. So a slot addresses the same leaf in
the arguments of a call, in its result, in each step of a loop and in each branch. Dynamic leaves travel through JAX as
flat lists; the slots of a list say what each element is, and `dict(zip(slots, leaves))` looks them up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from liftnn._src.graph.kinds import VARIABLE

ROOT = -1
"""The node number of the tree that was flattened, such as the arguments of a call. Keys are positions of leaves."""
OUTPUT = -2
"""The node number of the output of a call. Keys are positions of leaves."""


class Slot(NamedTuple):
    """The address of one dynamic leaf.

    Args:
      node: The number of the node that holds it; -1 for a leaf of the arguments, -2 for one of the output.
      key: The key of an array leaf, or its position among the leaves of the arguments or the output; None for the
        value of a Variable, which is the default.

    Example:
      >>> import liftnn
      >>> def show_slots(f):
      ...   return liftnn.lift(f, bind=lambda plan, pure: print(*plan.slots) or pure)
      >>> show_slots(lambda variable, x: None)(liftnn.Param(1.0), 2.0)
      Slot(node=0, key=None) Slot(node=-1, key=1)
    """

    node: int
    key: Any = None


BySlot = Mapping[Slot, Any]
"""Dynamic leaves by their slots."""


class ArrayEdge:
    """The edge of an array leaf, equal only to itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ARRAY"

    def __reduce__(self) -> str:
        return "ARRAY"


ARRAY = ArrayEdge()
"""The edge of an array leaf."""


def array_keys(spec: Any) -> list[Any]:
    """Return the keys of a node's array leaves."""
    return [k for k, e in zip(spec.keys, spec.edges, strict=True) if e is ARRAY]


def tree_slots(root: int, edges: Sequence[Any]) -> list[Slot]:
    """Return the slots of the array leaves of a tree, given the edges of its leaves."""
    return [Slot(root, i) for i, e in enumerate(edges) if e is ARRAY]


def value_slots(specs: Iterable[tuple[int, Any]]) -> list[Slot]:
    """Return the slots of the values of the Variables among numbered nodes."""
    return [Slot(number) for number, spec in specs if spec.kind is VARIABLE]


def array_slots(specs: Iterable[tuple[int, Any]]) -> list[Slot]:
    """Return the slots of the array leaves of numbered nodes."""
    slots: list[Slot] = []
    for number, (_, _, _, keys, edges) in specs:
        for position, edge in enumerate(edges):
            if edge is ARRAY:
                slots.append(Slot(number, keys[position]))
    return slots
