"""Where the value of a Variable is stored, and the count of values that have moved to other devices."""

from __future__ import annotations

from typing import Any

from liftnn._src.variables import frames
from liftnn._src.variables.holding import is_container
from liftnn._src.variables.watch import end_watches


class Storage:
    """Storage of the value of one Variable, for the Variable's lifetime.

    `Variable` defines `__getattr__`, which keeps Python from specializing attribute reads: 50 ns each on Python 3.11,
    where a Storage takes 10. So the fast path keeps the storages of its Variables.
    """

    __slots__ = ("value",)

    value: Any


def whole_of(variable: Any) -> Any:
    """Return the Variable that holds the value of a view, such as that of one layer of a Stack; None if it is none."""
    return getattr(variable._storage, "whole", None)


class _Moves:
    """The number of times that a value of a Variable was replaced by one on other devices.

    Attributes:
      are_noted: Whether anybody asks: in a process that sees one device nobody does.
    """

    __slots__ = ("are_noted", "count")

    def __init__(self) -> None:
        self.are_noted = False
        self.count = 0

    def note(self, old: Any, new: Any) -> None:
        """Count the replacement of a value."""
        try:
            stays = old.sharding == new.sharding
        except Exception:  # a value that is not an array, or has no sharding
            stays = False
        self.count += not stays


moves = _Moves()
"""The moves of this process."""


def store(variable: Any, value: Any) -> None:
    """Store a value in a Variable; note if it is on other devices than the old one.

    A container in place of an array ends the watches, as if the structure had changed: two Variables must not hold one
    container, which is only looked for where Variables hold containers.
    """
    old = variable._storage.value
    if moves.are_noted and variable._owner is frames.PLAIN:
        moves.note(old, value)
    variable._storage.value = value
    if type(value) is not type(old) and is_container(value) and variable._owner is frames.PLAIN:
        end_watches(variable)
