"""Find modules and Variables inside static objects, where their state is not part of the model, and warn of them."""

from __future__ import annotations

import collections
import threading
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from liftnn import errors
from liftnn._src.instances import held_by
from liftnn._src.static_values.value_types import is_foreign
from liftnn._src.tracebacks import warn
from liftnn._src.trees import an
from liftnn._src.variables import frames
from liftnn._src.variables.holding import parts_of

_MOST_VALUES = 256
"""The maximum number of objects to visit: a static value may refer to the whole program."""
_HIDING_LIBRARIES = ("argparse", "collections", "functools")
"""Modules of the standard library with classes that hold the user's objects."""


class _Hidden(NamedTuple):
    """A module or Variable in a static value.

    Args:
      found: The module or Variable.
      holder: The object that holds it, and that liftnn does not look into: the static value, or an object in it.
    """

    found: Any
    holder: Any


def _find_hidden(value: Any) -> _Hidden | None:
    """Find a module or Variable in an object that a static value is, or holds.

    Args:
      value: The static value: an object, or a function, method or container.

    Returns:
      The module or Variable; None if there is none, or if the class of the object is of the standard library or of a
      package that liftnn knows.
    """
    todo: list[tuple[Any, Any]] = [(value, None)]
    seen = set[int]()
    while todo and len(seen) < _MOST_VALUES:
        x, holder = todo.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if hasattr(type(x), "__graph_node__"):
            if holder is not None:
                return _Hidden(x, holder)
            continue
        parts = parts_of(x)
        if not parts:
            parts, holder = _hidden_parts(x), x if holder is None else holder
        todo += [(y, holder) for y in parts]
    return None


def is_called(above: Iterable[type]) -> bool:
    """Return whether a static value is a function of a loop or branch, or is stored in one: what it holds is captured.

    Args:
      above: The classes of the objects that hold the value, the innermost first.
    """
    owner = next((cls for cls in above if hasattr(cls, "__graph_node__")), None)
    return hasattr(owner, "__holds_functions__")


def _hidden_parts(x: Any) -> Iterable[Any]:
    """Return the elements of a set or the like, and the attributes of an object."""
    cls = type(x)
    if cls in (set, frozenset):
        return x
    if cls is types.MappingProxyType:
        return x.values()
    if isinstance(x, type) or (is_foreign(cls.__module__) and cls.__module__ not in _HIDING_LIBRARIES):
        return ()
    return held_by(x)


class _Warned(threading.local):
    """The latest hidden objects that the thread was warned of, as weak references."""

    def __init__(self) -> None:
        self.latest = collections.deque[weakref.ref[Any]](maxlen=64)


_warned = _Warned()


def _has_warned_of(hidden: _Hidden) -> bool:
    """Return whether an enclosing transform has warned of a hidden object, maybe by another path; note that it has."""
    is_known = any(reference() is hidden.found for reference in _warned.latest)
    if not is_known:
        _warned.latest.append(weakref.ref(hidden.found))
    return is_known and frames.current_frame() is not frames.PLAIN


def warn_if_hidden(value: Any, path: Callable[[], str]) -> None:
    """Warn if a static value holds a module or Variable.

    Args:
      value: The static value.
      path: Returns the path of the value.
    """
    hidden = _find_hidden(value)
    if hidden is None or _has_warned_of(hidden):
        return
    found, holder = (type(x) for x in hidden)
    through = "" if hidden.holder is value else f" in {an(holder)}"
    store = f"tore the {found.__name__} in an attribute, a list or a dict."
    users = not is_foreign(holder.__module__)
    warn(
        f"{path()} is {an(type(value))}, which liftnn treats as static, but it holds {an(found)}{through}. Its state "
        "is not part of the model: split, state, gradients and optimizers ignore it. "
        + (
            f"Make the class {holder.__name__} a liftnn.Module or a dataclass, or s{store}"
            if users
            else f"S{store}"
        ),
        errors.StructureWarning,
    )
