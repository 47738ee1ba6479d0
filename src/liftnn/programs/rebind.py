"""What a program changes each time it runs, where that is only new arrays and new Variables in place of old ones."""

from __future__ import annotations

from typing import Any

from liftnn.graph.description import ARRAY, KEEP, Description
from liftnn.graph.kinds import DICT, LIST, MODULE, VARIABLE
from liftnn.graph.merge import Change


class Rebind:
    """What a program does each time it sets bare arrays, or replaces Variables by new ones alike, and nothing else.

    Args:
      stored: Node and key of each bare array.
      placed: Node that holds a replaced Variable, the attribute, and which of the new ones goes there.
      made: Class and metadata of each new Variable, and the number of the one it replaces.
    """

    __slots__ = ("made", "placed", "stored")

    def __init__(
        self,
        stored: list[tuple[int, Any]],
        placed: list[tuple[int, Any, int]],
        made: list[tuple[type, Any, int]],
    ):
        self.stored = stored
        self.placed = placed
        self.made = made


def find_rebind(change: Change, graph: Description) -> Rebind | None:
    """Whether a change leaves the structure as it was, but for new arrays and new Variables in place of old ones.

    Args:
      change: The change.
      graph: The structure before.

    Returns:
      What to do to repeat it, or None.
    """
    old_of: dict[int, int] = {}
    stored: list[tuple[int, Any]] = []
    placed: list[tuple[int, Any, int]] = []
    for number, spec in change.changed:
        before = graph.specs[number]
        if spec.kind not in (MODULE, LIST, DICT) or spec[:4] != before[:4]:
            return None
        for key, edge, old in zip(spec.keys, spec.edges, before.edges, strict=True):
            if edge is ARRAY and old is ARRAY:
                stored.append((number, key))
            elif edge is not KEEP and edge != old:
                if type(edge) is not int or edge < change.known or type(old) is not int:
                    return None
                placed.append((number, key, edge - change.known))
                if old_of.setdefault(edge, old) != old or spec.kind is not MODULE:
                    return None
    if not _alike(change, graph, old_of, len(placed)):
        return None
    made = [(spec.type, spec.extra, old_of[number]) for number, spec in enumerate(change.new, change.known)]
    return Rebind(stored, placed, made)


def _alike(change: Change, graph: Description, old_of: dict[int, int], places: int) -> bool:
    """Whether all new nodes are Variables like the ones they replace, everywhere that those stood."""
    for number, spec in enumerate(change.new, change.known):
        if (
            spec.kind is not VARIABLE
            or spec.keys
            or number not in old_of
            or spec != graph.specs[old_of[number]]
        ):
            return False
    replaced = set(old_of.values())
    held = [e for edges in (graph.edges, *(s.edges for s in graph.specs)) for e in edges if type(e) is int]
    return len(replaced) == len(old_of) and sum(e in replaced for e in held) == places
