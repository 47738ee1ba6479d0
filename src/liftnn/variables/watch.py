"""Watches: how a structural change of an object is noticed by those who remember its structure.

Who remembers a structure (the warm plan of a `jit`) puts one `Watch` on every Module and Variable in it. A change of
structure ends the watches of the object that changed; writing a Variable's value does not. A watch refers to nothing,
so it keeps nothing alive (to who watches it has a weak reference).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from liftnn.variables import frames


class Watch:
    """Stays valid until the structure of a watched object changes."""

    __slots__ = ("plan", "valid")

    def __init__(self) -> None:
        self.valid = True
        self.plan: Callable[[], Any] = _nothing
        """Who watches, as a weak reference: a change that it can follow need not end the watch."""


def _nothing() -> None:
    """A reference to nobody."""


class _Changes:
    """Counts structural changes of objects of plain Python, in all threads."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


changes = _Changes()
_lock = threading.Lock()


def end_watches(x: Any) -> None:
    """Called after the structure of a Module, or the metadata of a Variable, has changed.

    Args:
      x: The object.
    """
    if x._owner is frames.PLAIN:  # copies inside a trace come and go while their originals are walked
        changes.count += 1
    for watch in x._watches:
        watch.valid = False


def start_watch(objects: Iterable[Any], since: int) -> Watch:
    """Watches objects whose structure has just been walked.

    Args:
      objects: Modules and Variables.
      since: `changes.count` from before the walk. If there was a change since, perhaps by another thread, the watch
        is over from the start.

    Returns:
      The watch.
    """
    watch = Watch()
    with _lock:
        for x in objects:
            set_watches(x, (*[w for w in x._watches if w.valid and w.plan() is not None], watch))
    watch.valid = changes.count == since
    return watch


def set_watches(x: Any, watches: tuple[Watch, ...]) -> None:
    """Puts watches on an object in place of those it had."""
    object.__setattr__(x, "_watches", watches)
