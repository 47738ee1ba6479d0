"""Watches: they tell the fast path of a `jit` that the structure of an object has changed.

The fast path puts one `Watch` on every Module and Variable of the structure that it remembers. A change of structure
ends the watches on the object that changed; writing a Variable's value does not. A watch has only a weak reference to
its watcher, so it keeps nothing alive.

A static attribute such as `deterministic` may change often, back and forth. Its first change ends the watch, and the
watch records the name. A watch created with that name stays valid when the attribute changes: its watcher compares the
values itself.

A signal handler may raise between a write and the end of the watches. Then `Changing` ends them before the exception
continues, so that no fast path misses the write.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Container, Iterable
from typing import Any

import jax

from liftnn._src.variables import frames


class Watch:
    """A flag that is valid until the structure of a watched object changes.

    Args:
      names: Static attributes; their changes do not end the watch.
    """

    __slots__ = ("ended_by", "names", "valid", "watcher")

    def __init__(self, names: Container[str] = frozenset()) -> None:
        self.valid = True
        self.names = names
        self.ended_by: set[str] = set()
        """Names of the static attributes that have ended the watch, if nothing else has."""
        self.watcher: Callable[[], Any] = _nothing
        """A weak reference to the watcher. A change that the watcher can follow need not end the watch."""


def _nothing() -> None:
    """An empty reference."""


class _Changes:
    """Counters of structural changes of plain-Python objects, in all threads."""

    __slots__ = ("count", "exposed")

    def __init__(self) -> None:
        self.count = 0
        self.exposed = 0
        """The number of counted events that are no change yet: an attribute dictionary was handed out."""


changes = _Changes()
_watch_lock = threading.Lock()

_SIMPLE = frozenset([bool, int, str, type(None)])


class _EveryName:
    """A container that contains every name."""

    def __contains__(self, name: object) -> bool:
        return True


EVERY_NAME = _EveryName()
"""The names of a watch that no static attribute ends."""


def is_simple(x: Any) -> bool:
    """Return whether a static value is cheap to compare, so it may vary between calls on the fast path."""
    return type(x) in _SIMPLE


def is_equal(x: Any, y: Any) -> bool:
    """Return whether two numbers, strings or similar values are interchangeable, by a cheap comparison."""
    cls = type(x)
    return cls is type(y) and (cls in _SIMPLE or (cls is float and x != 0.0)) and bool(x == y)


def end_watches(x: Any) -> None:
    """End the watches of an object after its structure (of a Module) or metadata (of a Variable) has changed.

    Args:
      x: The object.
    """
    if x._owner is frames.PLAIN:  # copies change inside a trace, where originals are flattened
        changes.count += 1
    for watch in x._watches:
        watch.valid = False
        watch.ended_by.clear()


class Changing:
    """A context in which code changes an object: an exception ends the watches, since it may come after the write.

    Args:
      x: The Module or Variable.
    """

    __slots__ = ("_x",)

    def __init__(self, x: Any):
        self._x = x

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: Any) -> None:
        """End the watches if there is an exception, such as one from a signal handler."""
        if kind is not None:
            end_watches(self._x)


def note_change(x: Any, name: str, old: Any, new: Any) -> None:
    """End watches after an attribute of a Module has been set, if that has changed the structure.

    Args:
      x: The Module.
      name: The attribute.
      old: Its old value; an object that cannot be an attribute if it is new.
      new: Its new value.
    """
    if old is new or (x._owner is not frames.PLAIN and is_equal(old, new)):
        return
    if is_simple(old) and is_simple(new):
        note_static_change(x, name)
    elif not (isinstance(old, jax.Array) and isinstance(new, jax.Array)):
        end_watches(x)


def note_static_change(x: Any, name: str) -> None:
    """End watches after a static attribute of a Module has changed from one simple value to another.

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


def start_watch(
    watcher: Any, objects: Iterable[Any], since: int, names: Container[str] = frozenset()
) -> Watch:
    """Watch objects that have just been flattened.

    Args:
      watcher: The watcher; while it lives, the watch stays on the objects.
      objects: Modules and Variables.
      since: `changes.count` from before the objects were flattened. If the count has changed since, perhaps by another
        thread, the watch is invalid from the start.
      names: Static attributes; their changes do not end the watch. The default is none.

    Returns:
      The watch.
    """
    watch = Watch(names)
    watch.watcher = weakref.ref(watcher)  # before another thread can meet the watch
    with _watch_lock:
        for x in objects:
            _add_watch(x, watch)
    watch.valid = changes.count == since
    return watch


def _add_watch(x: Any, watch: Watch) -> None:
    """Put a watch on an object, and remove those that have ended."""
    set_watches(x, (*[w for w in x._watches if w.valid and w.watcher() is not None], watch))


def set_watches(x: Any, watches: tuple[Watch, ...]) -> None:
    """Replace the watches on an object."""
    object.__setattr__(x, "_watches", watches)
