"""The attributes of Modules and dataclasses, and how writes past `Module.__setattr__` are noticed.

`Module.__setattr__` ends the watches of those who remember a module's structure. There are other ways to write an
attribute. `vars(module)` and `module.__dict__` hand out the dictionary itself; from then on the module is *exposed*,
and the fast path compares its attributes in each call. So it does for classes whose own code could write past
`Module.__setattr__`. What other code does with `object.__setattr__` can only be found by looking; see
`compilation/patrol.py`.
"""

from __future__ import annotations

import functools
import types
from typing import Any, TypeVar

from liftnn._src.graph.containers import Opened
from liftnn._src.static_values.value_types import mangle
from liftnn._src.variables.watch import changes, end_watches

T = TypeVar("T")


class Attributed:
    """The storage of a Module: its attributes, and what liftnn keeps for it."""

    __slots__ = ("__dict__", "__weakref__", "_exposed", "_fast_paths", "_owner", "_parts", "_watches")
    __graph_node__ = True


del Attributed.__slots__  # the slots stay; who looks for a user's slots in `__slots__` does not find these
attributes_of = vars(Attributed)["__dict__"].__get__
"""The dictionary of a Module's attributes, without exposing the Module."""
_replace_attributes = vars(Attributed)["__dict__"].__set__


def expose(x: Any) -> dict[str, Any]:
    """Hands out the dictionary of a Module's attributes, which may be written from now on without notice."""
    if not x._exposed:
        object.__setattr__(x, "_exposed", True)
        before = changes.count
        end_watches(x)
        changes.exposed += changes.count - before
    return attributes_of(x)


def replace_exposed(x: Any, attributes: dict[str, Any]) -> None:
    """Puts another dictionary in place of a Module's attributes."""
    _replace_attributes(x, attributes)
    object.__setattr__(x, "_exposed", True)
    end_watches(x)


def is_exposed(x: Any) -> bool:
    """Whether the attributes of a Module may be written without notice."""
    return x._exposed or _writes_past(type(x))


@functools.lru_cache(maxsize=4096)
def _writes_past(cls: type) -> bool:
    """Whether a class of Modules has slots, or code that could write attributes past `Module.__setattr__`."""
    if slot_names(cls):
        return True
    own = [
        base
        for base in cls.__mro__
        if issubclass(base, Attributed) and base.__module__.split(".")[0] != "liftnn"
    ]
    functions = [f for base in own for f in vars(base).values() if isinstance(f, types.FunctionType)]
    return any(not _PAST.isdisjoint((*f.__code__.co_names, f.__name__)) for f in functions)


_PAST = frozenset(["__setattr__", "__delattr__"])


@functools.cache
def slot_names(cls: type) -> tuple[str, ...]:
    """The slots that hold attributes: those of the class and its bases, except what Module keeps for itself."""
    names: list[str] = []
    for base in reversed(cls.__mro__):
        slots = base.__dict__.get("__slots__", ())
        if "__graph_node__" not in base.__dict__:
            names += [mangle(n, base) for n in ([slots] if isinstance(slots, str) else slots)]
    return tuple([n for n in names if n not in ("__dict__", "__weakref__")])


def flatten_attributes(x: Any) -> Opened:
    """The attributes of an object, in order of assignment; slots first."""
    attributes = attributes_of(x) if isinstance(x, Attributed) else getattr(x, "__dict__", {})
    slots = slot_names(type(x))
    if slots:
        attributes = {n: getattr(x, n) for n in slots if hasattr(x, n)} | attributes
    return None, tuple(attributes), tuple(attributes.values())


def fill_attributes(x: Any, extra: Any, keys: tuple[Any, ...], children: list[Any]) -> None:
    """Replaces all attributes of an object, past its `__setattr__`."""
    new = dict(zip(keys, children, strict=True))
    for name in slot_names(type(x)):
        if name in new:
            object.__setattr__(x, name, new.pop(name))
        elif hasattr(x, name):
            object.__delattr__(x, name)
    if isinstance(x, Attributed):
        _replace_attributes(x, new)
    elif isinstance(x, types.SimpleNamespace):  # its `__dict__` cannot be replaced
        vars(x).clear()
        vars(x).update(new)
    elif hasattr(x, "__dict__"):
        object.__setattr__(x, "__dict__", new)


def make_shell(cls: type[T], owner: Any) -> T:
    """A Module without attributes.

    Args:
      cls: Its class.
      owner: What it belongs to; see `frames`.

    Returns:
      The module.
    """
    module = object.__new__(cls)
    object.__setattr__(module, "_owner", owner)
    object.__setattr__(module, "_watches", ())
    object.__setattr__(module, "_fast_paths", ())
    object.__setattr__(module, "_exposed", False)
    object.__setattr__(module, "_parts", None)
    return module
