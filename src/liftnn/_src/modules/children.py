"""Find what holds a child, and set the child, past code of its class that would store something else."""

from __future__ import annotations

import collections
import inspect
import types
from collections.abc import Mapping
from typing import Any

from liftnn._src.graph.attributes import Attributed, attributes_of
from liftnn._src.graph.containers import base_of
from liftnn._src.trees import Path
from liftnn._src.variables import frames
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.watch import Changing, note_change
from liftnn._src.variables.write_errors import write_error


def set_child(holder: Any, key: Any, x: Any) -> None:
    """Set the child of a mutable node. The `__setattr__` of its class runs, since it may raise an error.

    Args:
      holder: The object that is the node.
      key: The key of the child.
      x: The new child.

    Raises:
      TraceContextError: If the object belongs to another trace.
    """
    if isinstance(holder, types.CellType):
        holder.cell_contents = x
    elif isinstance(holder, Variable):
        holder.set_metadata(key, x)
    elif isinstance(holder, (list, dict, collections.deque)):
        base_of(type(holder)).__setitem__(holder, key, x)
    elif type(key) is int:
        holder[key] = x
    elif _is_behind_descriptor(holder, key):
        _set_past_descriptor(holder, key, x)
    else:
        setattr(holder, key, x)


def container_at(tree: Any, path: Path) -> Any:
    """Return the list, dict or State at a path in a tree.

    Args:
      tree: A tree of modules.
      path: A path outside of them.

    Returns:
      The container; None if something else is there.
    """
    try:
        for key in path:
            has_keys = isinstance(tree, (list, tuple, Mapping)) and not hasattr(tree, "_fields")
            tree = tree[key] if has_keys else getattr(tree, key)
    except (AttributeError, LookupError, TypeError):  # a pytree whose keys are not those of its attributes
        return None
    # A State of another class, such as in the state of an Optimizer, has fixed entries.
    is_fixed = isinstance(tree, State) and type(tree) is not State
    return tree if isinstance(tree, (list, dict)) and not is_fixed else None


def _is_behind_descriptor(holder: Any, name: str) -> bool:
    """Return whether an attribute is stored under the name of a property or another descriptor."""
    attributes = attributes_of(holder) if isinstance(holder, Attributed) else getattr(holder, "__dict__", {})
    return name in attributes and hasattr(type(inspect.getattr_static(type(holder), name, None)), "__set__")


def _set_past_descriptor(holder: Any, name: str, x: Any) -> None:
    """Set an attribute that is stored under the name of a descriptor, which would set another value."""
    if not isinstance(holder, Attributed):
        vars(holder)[name] = x
        return
    if not frames.may_write(holder._owner):
        raise write_error(holder, f"the attribute {name!r}")
    attributes = attributes_of(holder)
    old = attributes[name]
    with Changing(holder):
        attributes[name] = x
        note_change(holder, name, old, x)
