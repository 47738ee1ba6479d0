"""Plain attributes of classes of Variables, which metadata of the same name replace, as in plain Python."""

from __future__ import annotations

import inspect
from typing import Any

from liftnn._src.variables.metadata import is_fixed_value


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

    def __get__(self, variable: Any, cls: type) -> Any:
        """Return the metadata of the name if there are some, else what the class has."""
        if variable is None or not variable._metadata.has(self.name):
            return self._find(cls)
        return variable._metadata[self.name]

    def _find(self, cls: type) -> Any:
        return self.value


class InheritedDefault(ClassDefault):
    """The same for an attribute of a base that is no class of Variables, which may change.

    Args:
      name: The name of the attribute.
      value: The class that inherits it.
    """

    __slots__ = ()

    def _find(self, cls: type) -> Any:
        return getattr(super(self.value, cls), self.name)


def let_metadata_replace_attributes(cls: type, base: type) -> None:
    """Put a descriptor in the place of each attribute of a class that is a fixed value, such as a number or a text.

    Modules, arrays and containers in a class stay, since transforms follow them.

    Args:
      cls: The class of Variables.
      base: The class `Variable`, whose own attributes stay, as do those of its bases.
    """
    for name in {name for above in cls.__mro__ if above not in base.__mro__ for name in vars(above)}:
        value = inspect.getattr_static(cls, name)
        if not name.startswith("__") and not hasattr(type(value), "__get__") and is_fixed_value(value):
            default = ClassDefault(name, value) if name in vars(cls) else InheritedDefault(name, cls)
            type.__setattr__(cls, name, default)
