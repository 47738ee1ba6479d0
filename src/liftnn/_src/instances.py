"""The attributes of any object, read without running code of its class."""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Mapping
from typing import Any

from liftnn._src.trees import module_of

NO_ATTRIBUTES: Mapping[str, Any] = types.MappingProxyType({})
"""What `instance_dict` returns for an object without an attribute dictionary."""


def instance_dict(x: Any) -> Mapping[str, Any]:
    """Return the attribute dictionary of an object; of a `threading.local`, that of this thread."""
    if issubclass(type(x), threading.local):
        return threading.local.__getattribute__(x, "__dict__")
    member = dict_member(type(x))
    found: Any = None if member is None else member.__get__(x)
    return found if type(found) in (dict, types.MappingProxyType) else NO_ATTRIBUTES


@functools.lru_cache(maxsize=4096)
def dict_member(cls: type) -> Any:
    """Return the descriptor that reads and sets `__dict__` of the instances of a class; None if there is none."""
    for base in type.__getattribute__(cls, "__mro__"):
        member = type.__getattribute__(base, "__dict__").get("__dict__")
        if type(member) in (types.GetSetDescriptorType, types.MemberDescriptorType):
            return member
    return None


@functools.lru_cache(maxsize=1024)
def slots_of(cls: type) -> tuple[tuple[str, types.MemberDescriptorType], ...]:
    """Return the names and descriptors of the slots of a class and its bases, without those of liftnn."""
    return tuple(
        (name, member)
        for base in type.__getattribute__(cls, "__mro__")
        if module_of(base).partition(".")[0] != "liftnn"
        for name, member in type.__getattribute__(base, "__dict__").items()
        if type(member) is types.MemberDescriptorType and not name.startswith("__")
    )


def read_slot(x: Any, member: types.MemberDescriptorType, default: Any) -> Any:
    """Return what a slot of an object holds; the default if it is empty."""
    try:
        return member.__get__(x)
    except AttributeError:
        return default


def held_by(x: Any) -> list[Any]:
    """Return the values of the slots and attributes of an object; None for an empty slot."""
    slots = (read_slot(x, member, None) for _, member in slots_of(type(x)))
    return [*slots, *instance_dict(x).values()]
