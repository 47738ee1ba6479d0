"""Watches: how a structural change of an object is noticed by those who remember its structure.

Who remembers a structure (the fast path of a `jit`) puts one `Watch` on every Module and Variable in it. A change of
structure ends the watches of the object that changed; writing a Variable's value does not. A watch refers to nothing,
so it keeps nothing alive (to who watches it has a weak reference).

A static attribute such as `deterministic` may change often, back and forth. The first time this ends the watch, and the
watch notes the name. A watch that knows the name beforehand stays valid: then its owner compares the values itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable
from typing import Any

from liftnn._src.variables import frames


class Watch:
    """Stays valid until the structure of a watched object changes.

    Args:
      names: Static attributes whose changes do not end it.
    """

    __slots__ = ("ended_by", "names", "valid", "watcher")

    def __init__(self, names: Container[str] = frozenset()) -> None:
        self.valid = True
        self.names = names
        self.ended_by: set[str] = set()
        """Names of the static attributes that have ended it, if nothing else has."""
        self.watcher: Callable[[], Any] = _nothing
        """Who watches, as a weak reference: a change that it can follow need not end the watch."""


def _nothing() -> None:
    """A reference to nobody."""


class _Changes:
    """Counts structural changes of objects of plain Python, in all threads."""

    __slots__ = ("count", "exposed")

    def __init__(self) -> None:
        self.count = 0
        self.exposed = 0
        """How many of them were no changes, but a dictionary of attributes that was handed out."""


changes = _Changes()
_lock = threading.Lock()

_SIMPLE = frozenset([bool, int, str, type(None)])


class _EveryName:
    """Contains every name."""

    def __contains__(self, name: object) -> bool:
        return True


EVERY_NAME = _EveryName()
"""For a watch that no static attribute ends."""


def is_simple(x: Any) -> bool:
    """Whether a static value is cheap to compare, so that it may vary between calls on the fast path."""
    return type(x) in _SIMPLE


def is_equal(x: Any, y: Any) -> bool:
    """Whether two numbers, strings or the like are interchangeable, at a glance."""
    cls = type(x)
    return cls is type(y) and (cls in _SIMPLE or (cls is float and x != 0.0)) and bool(x == y)


def end_watches(x: Any) -> None:
    """Called after the structure of a Module, or the metadata of a Variable, has changed.

    Args:
      x: The object.
    """
    if x._owner is frames.PLAIN:  # copies inside a trace come and go while their originals are walked
        changes.count += 1
    for watch in x._watches:
        watch.valid = False
        watch.ended_by.clear()


def note_static_change(x: Any, name: str) -> None:
    """Called after a static attribute of a Module has changed from one simple value to another.

    Args:
      x: The Module.
      name: The attribute.
    """
    if x._owner is frames.PLAIN:
        changes.count += 1
    for watch in x._watches:
        if name not in watch.names:
            if watch.valid or watch.ended_by:
                watch.ended_by.add(name)
            watch.valid = False


def start_watch(objects: Iterable[Any], since: int, names: Container[str] = frozenset()) -> Watch:
    """Watches objects whose structure has just been walked.

    Args:
      objects: Modules and Variables.
      since: `changes.count` from before the walk. If there was a change since, perhaps by another thread, the watch
        is over from the start.
      names: Static attributes whose changes do not end the watch. The default is none.

    Returns:
      The watch.
    """
    watch = Watch(names)
    with _lock:
        for x in objects:
            set_watches(x, (*[w for w in x._watches if w.valid and w.watcher() is not None], watch))
    watch.valid = changes.count == since
    return watch


def set_watches(x: Any, watches: tuple[Watch, ...]) -> None:
    """Puts watches on an object in place of those it had."""
    object.__setattr__(x, "_watches", watches)
