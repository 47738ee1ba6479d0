"""What captured objects hold when a trace begins, so that changes which the trace makes can be found and undone.

What leads to a captured module must not change at all. Elsewhere only a module that exists in the trace alone is undone
(see `lifting/stored.py`): a counter may count. Objects are read when the trace begins, not when they are searched:
until then, what leads to no module may change, and is not kept alive.
"""

from __future__ import annotations

import collections
import functools
import itertools
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from liftnn._src.captures.guards import (
    CELL_CONTENTS,
    CLASS,
    CONTEXT,
    DICTIONARY,
    ELEMENT,
    ITEM,
    OBJECT_CLASS,
    PLAIN_DICTIONARY,
    SIZE,
    SLOT,
    Guard,
    Guards,
    LeadingObject,
    assigned_guards,
)
from liftnn._src.graph.attributes import is_cached
from liftnn._src.graph.checks import ABSENT, list_entries, read_elements, size_of, split_entries
from liftnn._src.graph.containers import base_of, fill_entries, fill_list
from liftnn._src.instances import instance_dict, slots_of
from liftnn._src.trees import an, at_start

_MOST_RECORDED = 1_000
"""The maximum number of elements of a container to record if it leads to no module; what is added to a longer one is
seen."""
_CHANGEABLE = (list, set, dict, collections.deque)
_WRITTEN = (CELL_CONTENTS, ITEM, CLASS, SLOT, CONTEXT, ELEMENT, DICTIONARY, PLAIN_DICTIONARY)
"""The kinds of guards of what code can rebind."""


class Change(NamedTuple):
    """What has changed since a snapshot.

    Args:
      key: The key, attribute or index; None for a variable, and for another order of a dict.
      old: The earlier value; `ABSENT` if there was none.
      value: The new value; `ABSENT` if there is none.
      undo: Restores the earlier value.
    """

    key: Any
    old: Any
    value: Any
    undo: Callable[[], None]


class LocationSnapshot(NamedTuple):
    """A variable, attribute or slot, and what it held.

    Args:
      guard: The guard that reads and writes it; its value is what the location held.
      leads: Whether it leads to a captured module, so that it must not change.
      owner: The object of which nothing may change; None, the default, if only this location may not.
    """

    guard: Guard
    leads: bool
    owner: Any = None

    @classmethod
    def of(cls, guard: Guard, leads: bool = False, owner: Any = None) -> LocationSnapshot:
        """Record what a location holds."""
        value = guard.kind.read(guard.holder, guard.key)
        return cls(guard._replace(value=value, loose=False), leads, owner)

    def changes(self) -> Iterator[Change]:
        """Yield the change of the location, if there is one."""
        kind, holder, key, old, _ = self.guard
        value = kind.read(holder, key)
        if value is not old:
            yield Change(getattr(key, "__name__", key), old, value, self.restore)

    def restore(self) -> None:
        """Restore what the location held."""
        kind, holder, key, old, _ = self.guard
        kind.write(holder, key, old)

    def describe(self) -> str:
        """Return the subject of a message about it."""
        kind, holder, key, _, _ = self.guard
        if self.owner is not None or kind is ELEMENT or kind is OBJECT_CLASS:
            return _describe(holder if self.owner is None else self.owner)
        if kind is CELL_CONTENTS:
            return "A variable that holds captured modules"
        name = getattr(key, "__name__", key)
        what = f"A {kind.name} that holds captured modules"
        return what if name is None else f"{name!r}, which holds captured modules,"


class EntriesSnapshot(NamedTuple):
    """The entries of a container, or the attributes of an object or class, and what was in it.

    Args:
      container: The container, or the dictionary of the attributes.
      owner: The object or class whose attributes they are; None for another container.
      entries: The keys and values; of a list, deque or set the positions and elements. None if it is too large.
      size: The number of entries.
      leads: Whether it leads to a captured module, so that it must not change.
    """

    container: Any
    owner: Any
    entries: Sequence[tuple[Any, Any]] | None
    size: int
    leads: bool

    @classmethod
    def of(cls, container: Any, owner: Any = None, leads: bool = False) -> EntriesSnapshot:
        """Record what is in a container."""
        size = size_of(container)
        entries = list(_entries(container)) if leads or size <= _MOST_RECORDED else None
        return cls(container, owner, entries, size, leads)

    def changes(self) -> Iterator[Change]:
        """Yield the entries that are new, missing, or have another value."""
        now = list(itertools.islice(_entries(self.container), self.size if self.entries is None else 0, None))
        before: Sequence[tuple[Any, Any]] = () if self.entries is None else self.entries
        identify: Callable[[Any], int] = int if self.is_collection else id  # no code of a key runs
        old = {identify(entry[0]): entry for entry in before}
        new = {identify(entry[0]): entry for entry in now}
        is_same = True
        for at in {**old, **new}:
            key, was = old.get(at, (None, ABSENT))
            key, value = new.get(at, (key, ABSENT))
            if value is not was:
                is_same = False
                yield Change(key, was, value, functools.partial(self._restore_entry, key, was))
        is_ordered = self.leads and not issubclass(type(self.owner), type)
        if is_same and is_ordered and list(old) != list(new):
            yield Change(None, None, None, self.restore)

    @property
    def is_collection(self) -> bool:
        """Whether it is a list, deque or set."""
        return not issubclass(type(self.container), (dict, types.MappingProxyType))

    def restore(self) -> None:
        """Restore all entries, in their order; of a large container, remove what is new."""
        x = self.container
        if issubclass(type(self.owner), type):
            for change in list(self.changes()):
                change.undo()
        elif self.is_collection:
            kept = itertools.islice(base_of(type(x)).__iter__(x), self.size)
            fill_list(x, None, (), list(kept) if self.entries is None else [y for _, y in self.entries])
        elif self.entries is not None:
            fill_entries(x, [key for key, _ in self.entries], [y for _, y in self.entries])

    def _restore_entry(self, key: Any, old: Any) -> None:
        """Restore one entry of a mapping, or all elements of another container."""
        x = self.container
        if issubclass(type(self.owner), type):
            CLASS.write((self.owner, x), key, old)
        elif self.is_collection:
            self.restore()
        elif old is ABSENT:
            base_of(type(x)).pop(x, key, None)
        else:
            base_of(type(x)).__setitem__(x, key, old)

    def describe(self) -> str:
        """Return the subject of a message about it."""
        if issubclass(type(self.owner), type):
            return f"The class {self.owner.__name__}, which holds captured modules,"
        return _describe(self.container if self.owner is None else self.owner)


CapturedSnapshot = LocationSnapshot | EntriesSnapshot


def take_snapshots(guards: Guards) -> list[CapturedSnapshot]:
    """Record what captured objects hold, to find what changes.

    Args:
      guards: The guards of the captured modules.

    Returns:
      The snapshots of what leads to captured modules, then those of other places, where code may store a module.
    """
    snapshots: list[CapturedSnapshot] = []
    for leading in guards.leading:
        snapshots += (
            _whole(leading.x) if isinstance(leading, LeadingObject) else [LocationSnapshot.of(leading, True)]
        )
    recorded = {_address(x.container, x.owner) for x in snapshots if isinstance(x, EntriesSnapshot)}
    for container, cls in _containers(guards):
        address = _address(container, cls)
        if address not in recorded:
            recorded.add(address)
            snapshots.append(EntriesSnapshot.of(container, cls))
    single = (g for g in guards.guards if g.kind in _WRITTEN and id(g.holder) not in recorded)
    snapshots += map(LocationSnapshot.of, single)
    return snapshots


def _address(container: Any, owner: Any) -> int:
    """Return the id of the container, or of the class, whose dictionary is a new object whenever it is read."""
    return id(owner if issubclass(type(owner), type) else container)


def _whole(x: Any) -> Iterator[CapturedSnapshot]:
    """Yield the snapshots of an object: elements, attributes and slots, or the attributes of a class."""
    cls = type(x)
    if issubclass(cls, type):
        yield EntriesSnapshot.of(type.__getattribute__(x, "__dict__"), x, True)
        return
    if issubclass(cls, _CHANGEABLE):
        yield EntriesSnapshot.of(x, None, True)
    attributes = instance_dict(x)
    for guard in assigned_guards(x, attributes):
        yield LocationSnapshot.of(guard, True, x)
    if type(attributes) is dict:
        yield EntriesSnapshot.of(attributes, x, True)
    for _, member in slots_of(cls):
        yield LocationSnapshot.of(Guard(SLOT, x, member, ABSENT), True, x)


def _containers(guards: Guards) -> Iterator[tuple[Any, type | None]]:
    """Yield the containers and attributes of objects that guards look at; of the attributes of a class, the class."""
    sized = ((g.holder, g.key) for g in guards.guards if g.kind is SIZE)
    elements = ((e.container, None) for e in guards.elements)
    return ((x, cls) for x, cls in (*sized, *elements) if cls is not None or issubclass(type(x), _CHANGEABLE))


def _entries(container: Any) -> Iterable[tuple[Any, Any]]:
    """Return the keys and values of a container, without running code of its class.

    Python itself may set special attributes of a class, so they are left out.
    """
    if type(container) is types.MappingProxyType:
        return [(name, x) for name, x in container.items() if not name.startswith("__")]
    base = base_of(type(container))
    if not issubclass(base, dict):
        return enumerate(read_elements(base.__iter__, container))
    return zip(*split_entries(read_elements(list_entries, container)), strict=True)


def _describe(x: Any) -> str:
    return f"{at_start(an(type(x)))} that holds captured modules"


def forget_cached(snapshots: Sequence[CapturedSnapshot]) -> None:
    """Remove new values of cached properties: they are computed again."""
    for snapshot in snapshots:
        for change in list(snapshot.changes()):
            if is_new_cached(snapshot, change):
                change.undo()


def is_new_cached(snapshot: CapturedSnapshot, change: Change) -> bool:
    """Return whether a change is a new value of a cached property of an object that leads to a captured module."""
    is_attribute = isinstance(snapshot, EntriesSnapshot) and snapshot.leads and snapshot.owner is not None
    return is_attribute and change.old is ABSENT and is_cached(snapshot.owner, change.key)
