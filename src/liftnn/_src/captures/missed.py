"""Captured objects that the search misses: they are detected when a function uses them, and are inputs from then on.

For a compiled function, another object may take the place of such an object later. So a wider search
(`search.find_missed`) looks for the object, and its steps are guarded. An object that it does not find is warned of
here; one that it finds no longer is forgotten.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from liftnn import errors
from liftnn._src.tracebacks import warn
from liftnn._src.trees import an
from liftnn._src.variables import frames


class _Entry:
    """One object.

    Args:
      x: The object.
    """

    __slots__ = ("is_guarded", "reference")

    def __init__(self, x: Any):
        self.reference = weakref.ref(x)
        self.is_guarded: bool | None = None
        """Whether the steps to it are guarded; None if no search has looked for it."""


class Missed:
    """The captured objects that the search missed in the calls of one function."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, x: Any) -> None:
        """Record an object of plain Python; others do not outlive their trace."""
        if x._owner is not frames.PLAIN:
            return
        alive = [entry for entry in self._entries if entry.reference() is not None]
        self._entries = [*(entry for entry in alive if entry.reference() is not x), _Entry(x)]

    def to_use(self) -> list[Any]:
        """Return the objects that are inputs of the next call though no search finds them."""
        found = (entry.reference() for entry in self._entries if not entry.is_guarded)
        return [x for x in found if x is not None]

    def to_guard(self) -> list[Any]:
        """Return the objects that a search may find."""
        found = (entry.reference() for entry in self._entries if entry.is_guarded is not False)
        return [x for x in found if x is not None]

    def settle(self, unreached: Sequence[Any], name: str) -> bool:
        """Note which of the objects to guard have been reached.

        An object that was reached before, and is not now, has been replaced: it is forgotten. One that has never been
        reached is warned of, unless the call is inside another transform, which warns itself.

        Args:
          unreached: The objects that were not reached.
          name: The name of the function in messages.

        Returns:
          Whether an object was forgotten, so that the call must be flattened again.
        """
        ids = set(map(id, unreached))
        kept: list[_Entry] = []
        for entry in self._entries:
            x = entry.reference()
            if id(x) in ids and entry.is_guarded:
                continue
            if entry.is_guarded is None and (id(x) not in ids or frames.is_plain()):
                entry.is_guarded = id(x) not in ids
                if not entry.is_guarded:
                    _warn(x, name)
            kept.append(entry)
        is_replaced = len(kept) < len(self._entries)
        self._entries = kept
        return is_replaced


def _warn(x: Any, name: str) -> None:
    warn(
        f"{name} uses {an(type(x))} that it reaches in a way that liftnn cannot follow, such as through an "
        "iterator. If a later call reaches another one, this one is still used. Pass it as an argument.",
        errors.CaptureWarning,
    )
