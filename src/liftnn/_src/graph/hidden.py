"""Find modules and Variables inside static objects, where their state is not part of the model, and warn of them."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any

from liftnn import errors
from liftnn._src.static_values.value_types import is_foreign
from liftnn._src.tracebacks import warn
from liftnn._src.trees import an

_MOST = 256
"""The maximum number of objects to visit: a static value may refer to the whole program."""


def find_hidden(value: Any) -> Any:
    """Find a module or Variable in the attributes of a static object, or in containers and objects among them.

    Args:
      value: The static value.

    Returns:
      A module or Variable; None if there is none, or if the class of the object is of the standard library or of a
      package that liftnn knows.
    """
    todo, seen = list(_parts(value)), {id(value)}
    while todo and len(seen) < _MOST:
        x = todo.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if hasattr(type(x), "__graph_node__"):
            return x
        todo += _parts(x)
    return None


def _parts(x: Any) -> Iterable[Any]:
    """Return the elements of a built-in container, and the attributes of an object of a user's class."""
    cls = type(x)
    if cls in (list, tuple, set, frozenset):
        return x
    if cls is dict:
        return x.values()
    if cls is types.MethodType:
        return (x.__self__,)
    if isinstance(x, type) or is_foreign(cls.__module__):
        return ()
    return list(getattr(x, "__dict__", {}).values())


def warn_of_hidden(value: Any, hidden: Any, path: str) -> None:
    """Warn that a static object holds a module or Variable.

    Args:
      value: The object.
      hidden: The module or Variable.
      path: The path of the object.
    """
    warn(
        f"{path} is {an(type(value))}, which liftnn treats as static, but it holds {an(type(hidden))}. Its state is "
        "not part of the model: split, state, gradients and optimizers leave it out. Make the class "
        f"{type(value).__name__} a liftnn.Module or a dataclass, or store the {type(hidden).__name__} in an attribute, "
        "a list or a dict.",
        errors.StructureWarning,
    )
