"""Guards: checks by identity of the objects that a compiled call depends on besides its arguments.

The search for captured modules follows closure cells, globals, containers and attributes, starting from a function.
Each step of the search records a guard: where it looked, and the object that it found. While all guards hold, another
search would find the same modules, so a call does not search again. Steps that led to no module are guarded too, for
example an empty list or a name bound to None, because a module may be stored there later. Such a guard is loose if it
found an atom (a number, a string, None): it also holds for any other atom.

`Guards.hold` checks all guards in a loop; the generated fast path contains the same checks as straight-line code (see
`compilation/generate.py`). `Guards.restore` writes back the objects that lead to captured modules, since code that runs
under a transform must not change them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from liftnn._src.graph.checks import ABSENT, ATOMS, Elements, size_of
from liftnn._src.instances import read_slot


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
DICTIONARY = GuardKind(
    "attribute dictionary",
    lambda x, member: member.__get__(x),
    lambda x, member, value: member.__set__(x, value),
    "{k}.__get__({h})",
)
CONTEXT = GuardKind(
    "context variable", lambda v, _: v.get(ABSENT), lambda v, _, x: v.set(x), "{h}.get(ABSENT)"
)
SIZE = GuardKind("size", lambda container, _: size_of(container), _not_written, "size_of({h})")
ELEMENT = GuardKind("element", lambda x, i: x[i], _write_item, "{h}[{k}]")
CALLED = GuardKind("reference", lambda reference, _: reference(), _not_written, "{h}()")


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

    def at_present(self) -> Guard:
        """Return the location with the value that it holds now, which must stay."""
        return self._replace(value=self.kind.read(self.holder, self.key), loose=False)

    def restore(self) -> None:
        """Write the value back."""
        self.kind.write(self.holder, self.key, self.value)


class ObjectAttributes(NamedTuple):
    """All attributes of a plain object; `at_present` reads them.

    Args:
      x: The object.
      elements: The names and values in its attribute dictionary; None if it has no such dictionary.
      slots: The guards of its slots.
      dictionary: The guard of the attribute dictionary itself; None, the default, if it cannot be replaced.
    """

    x: Any
    elements: Elements | None
    slots: tuple[Guard, ...]
    dictionary: Guard | None = None

    def forget_cached(self) -> None:
        """Remove new values of cached properties: they are computed again."""
        if self.elements is None:
            return
        attributes = self.elements.container
        for name in attributes.keys() - set(self.elements.kept[: self.elements.size]):
            if is_cached(self.x, name):
                del attributes[name]

    def at_present(self) -> ObjectAttributes:
        """Return the object with the attributes that it has now."""
        elements = None if self.elements is None else self.elements.at_present()
        dictionary = None if self.dictionary is None else self.dictionary.at_present()
        slots = tuple([slot.at_present() for slot in self.slots])
        return ObjectAttributes(self.x, elements, slots, dictionary)

    def holds(self) -> bool:
        """Return whether the object has the same attributes."""
        guards = self.slots if self.dictionary is None else (*self.slots, self.dictionary)
        return (self.elements is None or self.elements.holds()) and all(guard.holds() for guard in guards)

    def restore(self) -> None:
        """Restore the attributes."""
        if self.dictionary is not None and not self.dictionary.holds():
            self.dictionary.restore()
        if self.elements is not None:
            self.elements.restore()
        for slot in self.slots:
            if not slot.holds():
                slot.restore()


class ClassAttributes(NamedTuple):
    """The attributes of a class, without special ones, which Python itself may set.

    Args:
      cls: The class.
      kept: The attributes that must stay.
    """

    cls: type
    kept: Mapping[str, Any]

    def at_present(self) -> ClassAttributes:
        """Return the class with the attributes that it has now."""
        attributes = dict(type.__getattribute__(self.cls, "__dict__"))
        return self._replace(kept={name: x for name, x in attributes.items() if not name.startswith("__")})

    def _changed(self) -> list[str]:
        """Return the names of the attributes that are new, missing or have another value."""
        now = self.at_present().kept
        names = dict.fromkeys((*self.kept, *now))
        return [n for n in names if self.kept.get(n, ABSENT) is not now.get(n, ABSENT)]

    def holds(self) -> bool:
        """Return whether the class has the same attributes."""
        return not self._changed()

    def restore(self) -> None:
        """Restore the attributes."""
        for name in self._changed():
            value = self.kept.get(name, ABSENT)
            CLASS.write((self.cls, type.__getattribute__(self.cls, "__dict__")), name, value)


Leading = Guard | Elements | ObjectAttributes | ClassAttributes
"""What leads to a captured module, so that code under a transform must not change it."""


def is_cached(x: Any, name: str) -> bool:
    """Return whether an attribute is the value of a cached property, which is computed again when it is removed."""
    return isinstance(inspect.getattr_static(type(x), name, None), functools.cached_property)


class Guards:
    """The guards of one call.

    Args:
      guards: Guards of single locations.
      elements: Guards of all elements of a container.
      leading: The guards of either kind that lead to a captured module, which code under a transform must not change.
    """

    __slots__ = ("elements", "guards", "leading")

    def __init__(
        self,
        guards: Sequence[Guard] = (),
        elements: Sequence[Elements] = (),
        leading: Sequence[Leading] = (),
    ):
        self.guards = guards
        self.elements = elements
        self.leading = leading

    def __add__(self, others: Guards) -> Guards:
        """Return these and other guards."""
        return Guards(
            [*self.guards, *others.guards],
            [*self.elements, *others.elements],
            [*self.leading, *others.leading],
        )

    def __bool__(self) -> bool:
        return bool(self.guards or self.elements)

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

    def at_present(self) -> Guards:
        """Return what leads to captured modules as it is now.

        Since the search, everything in it that leads to no module may have changed.
        """
        return Guards(leading=[guard.at_present() for guard in self.leading])

    def restore(self) -> list[Leading]:
        """Write back the values that lead to captured modules, and the other attributes of objects that do.

        Returns:
          The guards of the locations that had been changed.
        """
        for guard in self.leading:
            if isinstance(guard, ObjectAttributes):
                guard.forget_cached()
        broken = [guard for guard in self.leading if not guard.holds()]
        for guard in broken:
            guard.restore()
        return broken


NO_GUARDS = Guards()
