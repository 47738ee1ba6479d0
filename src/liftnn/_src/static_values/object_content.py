"""The content of plain objects, which can change in place while they stay the same objects."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Set
from typing import Any, NamedTuple


class SameObject:
    """A wrapper that compares an object by identity without keeping it alive, if this is possible.

    Args:
      x: The object.
    """

    __slots__ = ("_hash", "_reference")

    def __init__(self, x: Any):
        self._reference = refer_to(x)
        self._hash = id(x)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SameObject):
            return False
        x = self._reference()
        return x is not None and x is other._reference()

    def __hash__(self) -> int:
        return self._hash


def refer_to(x: Any) -> Callable[[], Any]:
    """Return a weak reference to an object; a function that returns it if it does not support them."""
    try:
        return weakref.ref(x)
    except TypeError:
        return lambda: x


class Held(NamedTuple):
    """What one plain object holds.

    Args:
      reference: Returns the object; None if it has died.
      path: The path that leads to it from the static value.
      values: The content of each attribute by name: equal only for interchangeable values.
      texts: The text of each attribute for messages.
    """

    reference: Callable[[], Any]
    path: tuple[Any, ...]
    values: Mapping[str, Any]
    texts: Mapping[str, str]


class ObjectContent:
    """What the plain objects in one static value hold.

    Args:
      objects: What each object holds, by its id.
      names: The attributes that the code names; others were not looked at.
    """

    __slots__ = ("names", "objects", "written")

    def __init__(self, objects: Mapping[int, Held], names: Set[str]):
        self.objects = objects
        self.names = names
        self.written: set[tuple[int, str]] = set()
        """The attributes that a trace has written, by the id of the object and the name: they are not compared."""

    def agrees(self, other: ObjectContent) -> bool:
        """Return whether the objects in both hold the same, apart from what a trace has written."""
        return self._differences(other) <= self.written | other.written

    def note_written(self, now: ObjectContent) -> None:
        """Note what a trace has written.

        Args:
          now: The content after the trace.
        """
        self.written |= self._differences(now)

    def _differences(self, other: ObjectContent) -> set[tuple[int, str]]:
        """Return the attributes that differ, of the objects in both."""
        found = set[tuple[int, str]]()
        for address in self.objects.keys() & other.objects.keys():
            a, b = self.objects[address], other.objects[address]
            x = a.reference()
            if x is not None and x is b.reference() and a.values != b.values:
                names = a.values.keys() | b.values.keys()
                found |= {
                    (address, n) for n in names if a.values.get(n, _NO_VALUE) != b.values.get(n, _NO_VALUE)
                }
        return found


_NO_VALUE = object()
