"""The attributes of Modules and dataclasses, and the detection of writes that bypass `Module.__setattr__`.

`Module.__setattr__` ends the watches on a module, which belong to code that remembers its structure. There are other
ways to write an attribute. `vars(module)` and `module.__dict__` return the dictionary itself; from then on the module
is *exposed*, and the fast path compares its attributes in each call. Modules of a class with code that could bypass
`Module.__setattr__` are treated in the same way. Writes by other code with `object.__setattr__` can only be found by
comparing attributes; see `compilation/patrol.py`.
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any, TypeVar

from liftnn._src.graph.containers import FlattenedNode
from liftnn._src.static_values.value_types import own_slots, read_slots
from liftnn._src.variables.watch import Changing, changes, end_watches

T = TypeVar("T")


class Attributed:
    """The slots of a Module: its attribute dictionary, and liftnn's own bookkeeping."""

    __slots__ = ("__dict__", "__weakref__", "_exposed", "_fast_paths", "_module_parts", "_owner", "_watches")
    __graph_node__ = True


del Attributed.__slots__  # the slots remain, but are not found as a user's slots
attributes_of = vars(Attributed)["__dict__"].__get__
"""Return the attribute dictionary of a Module without exposing the Module."""
_replace_attributes = vars(Attributed)["__dict__"].__set__


def expose(x: Any) -> dict[str, Any]:
    """Return the attribute dictionary of a Module; from now on it may be written without notice."""
    if not x._exposed:
        before = changes.count
        with Changing(x):  # else the next call would find it exposed
            object.__setattr__(x, "_exposed", True)
            end_watches(x)
        changes.exposed += changes.count - before
    return attributes_of(x)


def replace_exposed(x: Any, attributes: dict[str, Any]) -> None:
    """Replace the attribute dictionary of a Module."""
    with Changing(x):
        object.__setattr__(x, "_exposed", True)
        _replace_attributes(x, attributes)
        end_watches(x)


def is_exposed(x: Any) -> bool:
    """Return whether the attributes of a Module may be written without notice."""
    return x._exposed or _writes_past(type(x))


@functools.lru_cache(maxsize=4096)
def _writes_past(cls: type) -> bool:
    """Return whether a class of Modules has slots, or code that could bypass `Module.__setattr__`."""
    if slot_names(cls):
        return True
    user_classes = [
        base
        for base in cls.__mro__
        if issubclass(base, Attributed) and base.__module__.split(".")[0] != "liftnn"
    ]
    functions = [
        f for base in user_classes for f in map(inspect.unwrap, vars(base).values()) if inspect.isfunction(f)
    ]
    return any(not _PAST.isdisjoint((*f.__code__.co_names, f.__name__)) for f in functions)


_PAST = frozenset(["__setattr__", "__delattr__"])


@functools.cache
def slot_names(cls: type) -> tuple[str, ...]:
    """Return the slots that hold attributes: those of the class and its bases, without Module's own."""
    bases = [base for base in reversed(cls.__mro__) if "__graph_node__" not in base.__dict__]
    return tuple([name for base in bases for name in own_slots(base)])


def flatten_attributes(x: Any) -> FlattenedNode:
    """Return the attributes of an object, slots first, then in order of assignment."""
    attributes = attributes_of(x) if isinstance(x, Attributed) else getattr(x, "__dict__", {})
    slots = slot_names(type(x))
    if slots:
        attributes = read_slots(x, slots) | attributes
    return None, tuple(attributes), tuple(attributes.values())


def fill_attributes(x: Any, extra: Any, keys: tuple[Any, ...], children: list[Any]) -> None:
    """Replace all attributes of an object without calling its `__setattr__`."""
    new = dict(zip(keys, children, strict=True))
    slots = slot_names(type(x))
    filled = read_slots(x, slots)
    for name in slots:
        if name in new:
            object.__setattr__(x, name, new.pop(name))
        elif name in filled:
            object.__delattr__(x, name)
    if isinstance(x, Attributed):
        _replace_attributes(x, new)
    elif isinstance(x, types.SimpleNamespace):  # its `__dict__` cannot be replaced
        vars(x).clear()
        vars(x).update(new)
    elif hasattr(x, "__dict__"):
        object.__setattr__(x, "__dict__", new)


def is_cached(x: Any, name: Any) -> bool:
    """Return whether an attribute is the value of a cached property, which is computed again when it is removed."""
    return isinstance(name, str) and isinstance(
        inspect.getattr_static(type(x), name, None), functools.cached_property
    )


def remove_cached(x: Any, kept: tuple[Any, ...]) -> None:
    """Remove the values of cached properties from an object, except those with one of the `kept` names."""
    attributes = getattr(x, "__dict__", {})
    for name in [n for n in attributes if n not in kept and is_cached(x, n)]:
        del attributes[name]


def put_attribute(x: Any, name: Any, child: Any) -> None:
    """Set one attribute of a Module, past its `__setattr__` and past properties and other descriptors of its class.

    Args:
      x: The Module.
      name: The name; a class may have attributes of its own that are named by ints.
      child: The new value.
    """
    if name in slot_names(type(x)):
        object.__setattr__(x, name, child)
    else:
        attributes_of(x)[name] = child


def make_shell(cls: type[T], owner: Any) -> T:
    """Create a Module without attributes.

    Args:
      cls: The class of the module.
      owner: The owner of the module; see `frames`.

    Returns:
      The module.
    """
    module = object.__new__(cls)
    object.__setattr__(module, "_owner", owner)
    object.__setattr__(module, "_watches", ())
    object.__setattr__(module, "_fast_paths", ())
    object.__setattr__(module, "_exposed", False)
    object.__setattr__(module, "_module_parts", None)
    return module
