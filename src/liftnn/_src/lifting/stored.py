"""Detect and undo what a trace stores in captured objects: modules that exist only in it, where no module was.

The search for captured modules records where it found none, since a module may be stored there later: variables,
containers, attributes. A module that a trace has created, or that is a copy of an argument, must not stay there: its
arrays are tracers.
"""

from __future__ import annotations

import collections
import functools
import itertools
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from liftnn import errors
from liftnn._src.captures.guards import (
    CELL_CONTENTS,
    CLASS,
    CONTEXT,
    ELEMENT,
    ITEM,
    SIZE,
    SLOT,
    Guard,
    Guards,
    ObjectAttributes,
    is_cached,
)
from liftnn._src.captures.search import find_captured
from liftnn._src.graph.checks import ABSENT, size_of
from liftnn._src.graph.containers import base_of, fill_list
from liftnn._src.lifting.leaks import children_of, find_leak
from liftnn._src.trees import an
from liftnn._src.variables import frames

_MOST_RECORDED = 1_000
"""The maximum number of elements of a container to compare; of a longer one, only what is added at its end is seen."""
_CHANGEABLE = (list, set, dict, collections.deque)
_WRITTEN = (CELL_CONTENTS, ITEM, CLASS, SLOT, CONTEXT, ELEMENT)
"""The kinds of guards of what code can rebind."""


class _Change(NamedTuple):
    """What has been stored in one place.

    Args:
      key: The key, attribute or index; None for a variable.
      value: The new value.
      undo: Restores the earlier value.
    """

    key: Any
    value: Any
    undo: Callable[[], None]


class _Location(NamedTuple):
    """A variable, attribute or slot, and what it held when the trace began.

    Args:
      guard: The guard that reads and writes it.
    """

    guard: Guard

    def changes(self) -> Iterator[_Change]:
        """Yield the change of the location, if there is one."""
        guard = self.guard
        value = guard.kind.read(guard.holder, guard.key)
        if value is not guard.value:
            yield _Change(getattr(guard.key, "__name__", guard.key), value, guard.restore)


class _Contents(NamedTuple):
    """A container or the attributes of an object, and what was in it when the trace began.

    Args:
      container: The container, or the dictionary of the attributes.
      cls: The class whose attributes they are; None for another container.
      keys: The keys; of a list, deque or set the positions. None of a large container.
      values: The values.
      size: The number of entries.
    """

    container: Any
    cls: type | None
    keys: Sequence[Any]
    values: Sequence[Any]
    size: int

    @classmethod
    def of(cls, container: Any, owner: type | None = None) -> _Contents:
        """Record what is in a container."""
        size = size_of(container)
        pairs = list(_entries(container)) if size <= _MOST_RECORDED else []
        return cls(container, owner, [k for k, _ in pairs], [x for _, x in pairs], size)

    def changes(self) -> Iterator[_Change]:
        """Yield the entries that are new, or have another value."""
        x, size = self.container, self.size
        if size > _MOST_RECORDED and size >= size_of(x):
            return
        identify: Callable[[Any], int] = id if self._is_mapping else int  # no code of a key runs
        before = dict(zip(map(identify, self.keys), self.values, strict=True))
        # a list, since another thread may add to it
        for key, value in list(itertools.islice(_entries(x), 0 if self.keys else size, None)):
            old = before.get(identify(key), ABSENT)
            if value is not old:
                yield _Change(key, value, functools.partial(self._restore, key, old))

    @property
    def is_collection(self) -> bool:
        """Whether it is a list, deque or set."""
        return self.cls is None and not self._is_mapping

    @property
    def _is_mapping(self) -> bool:
        return issubclass(type(self.container), (dict, types.MappingProxyType))

    def _restore(self, key: Any, old: Any) -> None:
        """Restore one entry of a mapping, or all elements of another container; of a large one, drop what is new."""
        x = self.container
        if self.cls is not None:
            CLASS.write((self.cls, x), key, old)
        elif self._is_mapping:
            base = base_of(type(x))
            base.pop(x, key, None) if old is ABSENT else base.__setitem__(x, key, old)
        elif self.size <= _MOST_RECORDED:
            fill_list(x, None, (), self.values)
        else:
            fill_list(x, None, (), list(itertools.islice(base_of(type(x)).__iter__(x), self.size)))


def _entries(container: Any) -> Iterable[tuple[Any, Any]]:
    """Return the keys and values of a container, without running code of its class."""
    if type(container) is types.MappingProxyType:
        return container.items()
    base = base_of(type(container))
    return base.items(container) if issubclass(base, dict) else enumerate(base.__iter__(container))


_Place = _Location | _Contents


class Places:
    """Where the code of a trace may store a module, and what was there when the trace began.

    Args:
      guards: The guards of the captured modules.
    """

    def __init__(self, guards: Guards):
        self._contents: dict[int, _Contents] = {}
        for x, cls in _containers(guards):
            if id(x) not in self._contents:
                self._contents[id(x)] = _Contents.of(x, cls)
        self._locations = [
            _Location(guard.at_present())
            for guard in guards.guards
            if guard.kind in _WRITTEN and id(guard.holder) not in self._contents
        ]
        whole = [g for g in guards.leading if isinstance(g, ObjectAttributes)]
        self._owners = {id(g.elements.container): g.x for g in whole if g.elements is not None}
        """The objects that lead to captured modules, by the id of their attribute dictionary."""

    def undo(self, frame: frames.Frame, functions: Sequence[Any]) -> errors.TraceContextError | None:
        """Undo what the trace has stored.

        Args:
          frame: The frame of the trace.
          functions: The functions that have run.

        Returns:
          The error to raise; None if nothing was stored that exists only in the trace.
        """
        found = list(self._find(frame))
        if not found:
            return None
        change, leaked = found[0]
        names = {id(x): name for name, x in find_captured(functions).roots.items()}
        for each, _ in found:
            each.undo()
        return _error(names.get(id(leaked)) or repr(change.key), leaked, frame)

    def _find(self, frame: frames.Frame) -> Iterator[tuple[_Change, Any]]:
        """Yield each change that has stored a Module or Variable of the trace, and that object."""
        for place in (*self._contents.values(), *self._locations):
            for change in place.changes():
                leaked = find_leak(change.value, frame, False, _parts_of)
                if leaked is None or self._is_computed_again(place, change.key, leaked, frame):
                    continue
                if isinstance(place, _Contents) and place.is_collection and frame.name_of(leaked):
                    continue  # kept to be looked at, perhaps; any use raises
                yield change, leaked

    def _is_computed_again(self, place: _Place, key: Any, leaked: Any, frame: frames.Frame) -> bool:
        """Return whether a value of a cached property, such as the state of a captured module, will be removed."""
        owner = self._owners.get(id(place.container)) if isinstance(place, _Contents) else None
        creates = hasattr(type(leaked), "_module_parts") and not frame.name_of(leaked)
        return owner is not None and is_cached(owner, key) and not creates


def _containers(guards: Guards) -> Iterator[tuple[Any, type | None]]:
    """Yield the containers and attributes of objects that guards look at; of the attributes of a class, the class."""
    sized = ((g.holder, g.key) for g in guards.guards if g.kind is SIZE)
    elements = ((e.container, None) for e in guards.elements)
    return ((x, cls) for x, cls in (*sized, *elements) if cls is not None or issubclass(type(x), _CHANGEABLE))


def _parts_of(x: Any) -> Sequence[Any]:
    """Return the objects that an object refers to; none of a function, whose closure may hold what it had at hand."""
    is_reference = isinstance(x, (types.FunctionType, types.GeneratorType, weakref.ref))
    return () if is_reference else children_of(x)


def _error(name: str, leaked: Any, frame: frames.Frame) -> errors.TraceContextError:
    copy = frame.name_of(leaked)
    what = f"the copy of {copy}" if copy else f"{an(type(leaked))} created"
    return errors.TraceContextError(
        f"{name}, which the function captures, was set to {what} inside liftnn.{frame.name}. It would leak: its arrays "
        "exist only in that trace.",
        "Create the module before the call, or make it an attribute of a module, and pass that module as an argument "
        f"to the function given to liftnn.{frame.name}.",
    )
