"""Recognition of code that names a class of modules, so that it may create a module."""

from __future__ import annotations

import functools
import sys
import types
from typing import Any


def has_class(x: Any, names: set[str]) -> bool:
    """Return whether an object is a class of modules, or is liftnn and the code names one of its classes.

    Args:
      x: The object.
      names: The attributes that the code names.
    """
    if issubclass(type(x), type):  # `isinstance` would ask the object
        return _is_graph_class(x)
    return type(x) is types.ModuleType and is_own(x.__name__) and not names.isdisjoint(_public_classes())


def is_own(name: str) -> bool:
    """Return whether a Python module of this name belongs to liftnn."""
    return name.partition(".")[0] == "liftnn"


@functools.cache
def _public_classes() -> frozenset[str]:
    """Return the names of liftnn's own classes of modules."""
    return frozenset([n for n, x in vars(sys.modules["liftnn"]).items() if _is_graph_class(x)])


def _is_graph_class(x: Any) -> bool:
    """Return whether an object is a class of Modules or Variables."""
    return issubclass(type(x), type) and any(
        "__graph_node__" in type.__getattribute__(b, "__dict__") for b in type.__getattribute__(x, "__mro__")
    )
