"""Guards: checks by identity of the objects that a compiled call depends on besides its arguments.

The search for captured modules follows closure cells, globals, containers and attributes, starting from a function.
Each step of the search records a guard: where it looked, and the object that it found. While all guards hold, another
search would find the same modules, so a call does not search again. Steps that led to no module are guarded too, for
example an empty list or a name bound to None, because a module may be stored there later. Such a guard is loose if it
found an atom (a number, a string, None): it also holds for any other atom.

`Guards.hold` checks all guards in a loop; the generated fast path contains the same checks as straight-line code (see
`compilation/generate.py`). Code that runs under a transform must not change what leads to captured modules; see
`snapshots.py`.
"""

from __future__ import annotations

import functools
import threading
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from liftnn._src.graph.checks import ABSENT, ATOMS, Elements, size_of
from liftnn._src.instances import dict_member, instance_dict, read_slot


class GuardKind(NamedTuple):
    """The read and write operations of one kind of guard.

    Args:
      name: The name of the kind.
      read: Takes the holder and the key, returns the current value.
      write: Takes the holder, the key and a value, and stores the value.
      source: The expression that reads the value in generated code, with `{h}` for the holder and `{k}` for the key.
    """

    name: str
    read: Callable[[Any, Any], Any]
    write: Callable[[Any, Any, Any], None]
    source: str


def _read_cell(cell: Any, key: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return ABSENT


def _write_cell(cell: Any, key: Any, value: Any) -> None:
    cell.cell_contents = value


def _write_item(mapping: Any, key: Any, value: Any) -> None:
    if value is ABSENT:
        mapping.pop(key, None)
    else:
        mapping[key] = value


def _read_class(proxy: Any, key: Any) -> Any:
    return proxy[1].get(key, ABSENT)


def _write_class(proxy: Any, key: Any, value: Any) -> None:
    if value is not ABSENT:
        type.__setattr__(proxy[0], key, value)
    elif key in proxy[1]:
        type.__delattr__(proxy[0], key)


def _not_written(holder: Any, key: Any, value: Any) -> None:
    """Do nothing: code cannot rebind this kind of reference."""


CELL_CONTENTS = GuardKind("cell", _read_cell, _write_cell, "{h}.cell_contents")
ITEM = GuardKind("item", lambda d, key: d.get(key, ABSENT), _write_item, "{h}[{k}]")
CLASS = GuardKind("class attribute", _read_class, _write_class, "{h}[1][{k}]")
ATTRIBUTE = GuardKind("attribute", getattr, _not_written, "{h}.{name}")


def _write_slot(x: Any, member: Any, value: Any) -> None:
    if value is ABSENT:
        member.__delete__(x)
    else:
        member.__set__(x, value)


SLOT = GuardKind("slot", lambda x, member: read_slot(x, member, ABSENT), _write_slot, "{k}.__get__({h})")
OBJECT_CLASS = GuardKind(
    "class",
    lambda x, _: type(x),
    lambda x, _, cls: object.__setattr__(x, "__class__", cls),
    "type({h})",
)
DICTIONARY = GuardKind(
    "attribute dictionary",
    lambda x, member: member.__get__(x),
    lambda x, member, value: member.__set__(x, value),
    "{k}.__get__({h})",
)
PLAIN_DICTIONARY = DICTIONARY._replace(source="{h}.__dict__")
"""The same for an object of a class that does not define how its attributes are read, which is faster."""
CONTEXT = GuardKind(
    "context variable", lambda v, _: v.get(ABSENT), lambda v, _, x: v.set(x), "{h}.get(ABSENT)"
)
SIZE = GuardKind("size", lambda container, _: size_of(container), _not_written, "size_of({h})")
ELEMENT = GuardKind("element", lambda x, i: x[i], _write_item, "{h}[{k}]")
CALLED = GuardKind("reference", lambda reference, _: reference(), _not_written, "{h}()")
referent_of = weakref.ref.__call__
"""Return what a weak reference refers to, past the `__call__` of a subclass, which may make a new object."""
REFERENT = GuardKind(
    "reference", lambda reference, _: referent_of(reference), _not_written, "referent_of({h})"
)
"""The same for an instance of a subclass of `weakref.ref`."""


class Guard(NamedTuple):
    """One location, and the value that the search found there.

    Args:
      kind: How to read the location.
      holder: The object that holds the value: a cell, a mapping, another object.
      key: The key or attribute in the holder.
      value: The value that the search found.
      loose: Whether the guard also holds for any other atom.
    """

    kind: GuardKind
    holder: Any
    key: Any
    value: Any
    loose: bool = False

    def holds(self) -> bool:
        """Return whether the location still holds the value."""
        now = self.kind.read(self.holder, self.key)
        if self.kind is SIZE:
            return now == self.value
        return now is self.value or (self.loose and type(now) in ATOMS)


class LeadingObject(NamedTuple):
    """An object of which nothing may change, because part of it leads to a captured module.

    Args:
      x: A container, a class, or another object.
    """

    x: Any


Leading = Guard | LeadingObject
"""What leads to a captured module, so that code under a transform must not change it."""


def assigned_guards(x: Any, attributes: Mapping[str, Any]) -> list[Guard]:
    """Return the guards of what can be assigned to any object: its class, and its attribute dictionary if it has one.

    Args:
      x: The object.
      attributes: Its attribute dictionary.
    """
    cls = type(x)
    guards = [Guard(OBJECT_CLASS, x, None, cls)]
    if issubclass(cls, threading.local):  # it has a dictionary for each thread
        guards.append(Guard(CALLED, functools.partial(instance_dict, x), None, attributes))
    elif type(attributes) is dict and type(dict_member(cls)) is types.GetSetDescriptorType:
        guards.append(Guard(_dictionary_kind(cls), x, dict_member(cls), attributes))
    return guards


@functools.lru_cache(maxsize=4096)
def _dictionary_kind(cls: type) -> GuardKind:
    """Return the kind of guard of the attribute dictionaries of a class."""
    defined = [type.__getattribute__(base, "__dict__") for base in type.__getattribute__(cls, "__mro__")[:-1]]
    is_plain = sum("__dict__" in x for x in defined) == 1 and not any(
        "__getattribute__" in x for x in defined
    )
    return PLAIN_DICTIONARY if is_plain else DICTIONARY


class Guards:
    """The guards of one call.

    Args:
      guards: Guards of single locations.
      elements: Guards of all elements of a container.
      leading: What leads to a captured module.
      weak: The ids of captured modules to which only weak references lead.
    """

    __slots__ = ("elements", "guards", "leading", "weak")

    def __init__(
        self,
        guards: Sequence[Guard] = (),
        elements: Sequence[Elements] = (),
        leading: Sequence[Leading] = (),
        weak: frozenset[int] = frozenset(),
    ):
        self.guards = guards
        self.elements = elements
        self.leading = leading
        self.weak = weak

    def __add__(self, others: Guards) -> Guards:
        """Return these and other guards."""
        return Guards(
            [*self.guards, *others.guards],
            [*self.elements, *others.elements],
            [*self.leading, *others.leading],
            self.weak | others.weak,
        )

    def hold(self) -> bool:
        """Return whether all guards hold."""
        try:
            for guard in self.guards:
                if not guard.holds():
                    return False
            for elements in self.elements:
                if not elements.holds():
                    return False
        except Exception:  # another thread is changing a container; an object has lost an attribute
            return False
        return True


NO_GUARDS = Guards()
