"""The metadata of a Variable: an immutable mapping that many Variables can share."""

from __future__ import annotations

import copy
import dataclasses
import functools
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from liftnn import errors
from liftnn._src.static_values.static import SIMPLE_TYPES, is_fixed_function, static_key
from liftnn._src.static_values.value_types import is_hashable
from liftnn._src.variables.holding import holds_objects, parts_of_dataclass, parts_of_transformed
from liftnn._src.variables.hooks import HOOK_NAMES, HOOKS, as_hooks, normalize_hook

SHARDING_NAMES = ("sharding", "out_sharding", "sharding_names")
"""The metadata entries that declare how a Variable is sharded."""


class Annotated:
    """A value with metadata for the Variable that will hold it; annotated initializers return it. A leaf of pytrees.

    Args:
      value: The value.
      metadata: The metadata by name.
    """

    __slots__ = ("metadata", "value")

    def __init__(self, value: Any, metadata: Mapping[str, Any]):
        self.value = value
        self.metadata = metadata

    def __repr__(self) -> str:
        return f"Annotated({self.value!r}, {dict(self.metadata)!r})"


class Metadata(Mapping[str, Any]):
    """An immutable mapping from names to values, equal to another one of the same entries in any order.

    Five names of hooks, such as `get_value_hooks`, are always present; one that was not set is the empty tuple and
    takes no space.

    Args:
      items: The metadata by name.
    """

    __slots__ = ("_items", "key", "reads", "writes")

    def __init__(self, items: Mapping[str, Any]):
        for name in (*HOOKS, *HOOK_NAMES):
            if name in items:
                items = {**items, name: normalize_hook(name, items[name])}
        self._items = {k: v for k, v in items.items() if not (k in HOOK_NAMES and v == ())}
        self.reads = self.hooks("on_get_value")
        """The hooks that run when the value is read."""
        self.writes = self.hooks("on_set_value")
        """The hooks that run when a value is stored."""
        self.key: Any = None
        """A hashable that is equal for equal metadata; None if a value is mutable, so there is no lasting key."""
        if all(is_fixed_value(v) for v in self._items.values()):
            self.key = tuple([(k, static_key(self._items[k])) for k in sorted(self._items)])

    def __getitem__(self, name: str) -> Any:
        if name in HOOK_NAMES:
            return self._items.get(name, ())
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        yield from HOOK_NAMES
        yield from (name for name in self._items if name not in HOOK_NAMES)

    def __len__(self) -> int:
        return len(HOOK_NAMES) + sum(name not in HOOK_NAMES for name in self._items)

    def hooks(self, name: str) -> tuple[Any, ...]:
        """Return the hooks of one kind, in the order in which they run.

        Args:
          name: The name of the kind, such as `on_get_value`.

        Returns:
          Functions of the Variable and other arguments.
        """
        items = self._items
        if name not in items and HOOKS[name] not in items:
            return ()
        return (*as_hooks(items.get(name, ())), *items.get(HOOKS[name], ()))

    def has(self, name: str) -> bool:
        """Return whether an entry was set."""
        return name in self._items

    @property
    def entries(self) -> dict[str, Any]:
        """A copy of the entries that were set, without empty hooks."""
        return dict(self._items)

    @property
    def fixed(self) -> Metadata:
        """The entries that cannot change in place."""
        return Metadata.of({name: value for name, value in self._items.items() if is_fixed_value(value)})

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Metadata):
            return NotImplemented
        if self.key is None or other.key is None:
            a, b = self._items, other._items
            return a.keys() == b.keys() and all(_are_alike(a[name], b[name]) for name in a)
        return self.key == other.key

    def __hash__(self) -> int:
        return hash(frozenset(self._items) if self.key is None else self.key)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> Any:
        return (Metadata.of, (self._items,))

    @staticmethod
    def of(items: Mapping[str, Any]) -> Metadata:
        """Return Metadata of these items; one shared object if there are none."""
        return Metadata(items) if items else EMPTY


def is_fixed_value(value: Any) -> bool:
    """Return whether the key of a metadata value never changes: it is immutable, or compared by its own `==`."""
    if type(value) in SIMPLE_TYPES or type(value) is float:
        return True
    if type(value) is types.FunctionType:
        return is_fixed_function(value)
    if isinstance(value, weakref.ref):
        return False
    if isinstance(value, (tuple, frozenset)):
        return all(is_fixed_value(x) for x in value)
    if hasattr(type(value), "__graph_node__") or dataclasses.is_dataclass(value):
        return False
    if type(value) is types.MethodType:
        return is_fixed_value(value.__self__)
    if type(value) is functools.partial:
        return all(is_fixed_value(x) for x in (value.func, *value.args, *value.keywords.values()))
    if hasattr(type(value), "__recipe__"):
        return all(map(is_fixed_value, parts_of_transformed(value)))
    return is_hashable(value)


def _are_alike(a: Any, b: Any) -> bool:
    """Return whether two metadata values, one of them mutable, have the same content now."""
    if a is b:
        return True
    if type(a) is not type(b) or hasattr(type(a), "__graph_node__"):
        return False
    if isinstance(a, dict):
        same_keys = static_key(tuple(a)) == static_key(tuple(b))
        return same_keys and all(map(_are_alike, a.values(), b.values()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_are_alike, a, b))
    try:
        if isinstance(a, (np.ndarray, jax.Array)):
            same_kind = a.shape == b.shape and a.dtype == b.dtype
            return same_kind and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        return bool(static_key(a) == static_key(b))
    except (TypeError, errors.StructureError):  # traced, or not comparable
        return False


def adopt(current: Metadata, new: Metadata) -> Metadata:
    """Return the metadata of a Variable that takes over those of another, perhaps from another model.

    Args:
      current: The Variable's metadata.
      new: The metadata to take over. Mutable values are copied; the Variable keeps its own objects and arrays of the
        graph.

    Returns:
      The metadata; `current` itself if nothing differs.
    """
    if current == new:
        return current
    kept, items = current._items, {}
    for name, value in new._items.items():
        if name in kept and (_are_alike(kept[name], value) or holds_nodes(value)):
            items[name] = kept[name]
        else:
            items[name] = value if is_fixed_value(value) or holds_nodes(value) else copy.deepcopy(value)
    return Metadata.of(items)


def holds_nodes(value: Any) -> bool:
    """Return whether a metadata value is or holds a Module, a Variable or an array."""
    if isinstance(value, (np.ndarray, jax.Array)) or hasattr(type(value), "__graph_node__"):
        return True
    if type(value) is types.FunctionType:
        return holds_objects(value)
    if type(value) is types.MethodType:
        return holds_nodes(value.__self__)
    if type(value) is functools.partial:
        return any(map(holds_nodes, (value.func, *value.args, *value.keywords.values())))
    if hasattr(type(value), "__recipe__"):
        return any(map(holds_nodes, parts_of_transformed(value)))
    if isinstance(value, dict):
        value = tuple(value.values())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = tuple(parts_of_dataclass(value))
    return isinstance(value, (list, tuple)) and any(map(holds_nodes, value))


EMPTY = Metadata({})
