"""The methods of a class: which of its attributes are some, and under which name an object has a bound one."""

from __future__ import annotations

import inspect
import types
from typing import Any


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
