"""The methods of a class, and subclasses with other ones that only liftnn sees, to record the calls of an object."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from typing import Any

from liftnn._src.modules.module import Module


def is_method(x: Any) -> bool:
    """Return whether an attribute of a class is a method of its objects: a function, or a decorated one that binds."""
    return (
        callable(x) and hasattr(type(x), "__get__") and not isinstance(x, (type, staticmethod, classmethod))
    )


def name_of_method(method: types.MethodType) -> str | None:
    """Return the name under which an object has a bound method; None if it is that of a base, or of no class."""
    cls = type(method.__self__)
    names = [getattr(method, "__name__", ""), *dir(cls)]
    return next((n for n in names if inspect.getattr_static(cls, n, None) is method.__func__), None)


class _WithoutHooks:
    """Comes before the user's classes, whose `__init_subclass__` may need arguments, or keep a list of subclasses."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        vars(Module)["__init_subclass__"].__func__(cls)


def subclass_without_hooks(cls: type, body: Mapping[str, Any]) -> type:
    """Return a subclass of a class of modules with its name, without calling the user's `__init_subclass__`.

    Args:
      cls: The class.
      body: The attributes of the subclass.

    Returns:
      The subclass; an object of the class can get it by `object.__setattr__(x, "__class__", subclass)`.
    """
    names = {"__slots__": (), "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    bases = (cls,) if issubclass(cls, _WithoutHooks) else (_WithoutHooks, cls)  # one recording inside another
    metaclass: Any = type(cls)
    return metaclass(cls.__name__, bases, {**names, **body})
