"""Attributes of classes of Variables: what metadata of the same name replace, as attributes of an instance do in Python."""

from __future__ import annotations

import inspect
from typing import Any


class ClassDefault:
    """A descriptor in the place of a plain attribute of a class of Variables, such as `bits = 8`.

    Args:
      name: The name of the attribute.
      value: What the class has.
    """

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: Any):
        self.name = name
        self.value = value

    def __get__(self, variable: Any, cls: type | None = None) -> Any:
        """Return the metadata of the name if there are some, else what the class has."""
        if variable is None or not variable._metadata.has(self.name):
            return self.value
        return variable._metadata[self.name]


def let_metadata_replace_attributes(cls: type, base: type) -> None:
    """Put a ClassDefault in the place of each plain attribute that a class has beside methods, properties and slots.

    Args:
      cls: The class of Variables.
      base: The class `Variable`, whose own attributes stay, as do those of its bases.
    """
    for name in {name for above in cls.__mro__ if above not in base.__mro__ for name in vars(above)}:
        value = inspect.getattr_static(cls, name)
        if not name.startswith("__") and not hasattr(type(value), "__get__"):
            type.__setattr__(cls, name, ClassDefault(name, value))
