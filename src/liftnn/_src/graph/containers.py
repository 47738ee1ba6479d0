"""Flatten, create and fill lists, sets, dicts and tuples without running the code of subclasses.

Only methods of the built-in classes are called. So an overridden method, such as a `__setitem__` that raises, neither
has an effect nor fails in the middle of a merge or a commit.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from liftnn import errors
from liftnn._src.instances import instance_dict, read_slot, slots_of
from liftnn._src.static_values.static import Static, static_key
from liftnn._src.static_values.value_types import rank
from liftnn._src.trees import an, at_start

FlattenedNode = tuple[Any, tuple[Any, ...], Sequence[Any]]
"""The result of flattening a node: static extra, keys, children."""

_Deque, _OrderedDict, _DefaultDict = collections.deque, collections.OrderedDict, collections.defaultdict
_BASES = (list, _Deque, set, _OrderedDict, _DefaultDict, dict)  # a class precedes its base
_maxlen: Any = vars(_Deque)["maxlen"]
default_factory: Any = vars(_DefaultDict)["default_factory"]


@functools.lru_cache(maxsize=4096)
def base_of(cls: type) -> Any:
    """Return the built-in container that a class is, or derives from."""
    return next(base for base in _BASES if issubclass(cls, base))


def _refuse_attributes(x: Any) -> None:
    """Raise StructureError for a container with extra attributes, which flattening would lose."""
    members = (entry for entry in slots_of(type(x)) if entry[1].__objclass__ is not _DefaultDict)
    filled = [name for name, member in members if read_slot(x, member, x) is not x]
    attributes = [*filled, *instance_dict(x)]
    if attributes:
        raise errors.StructureError(
            f"{at_start(an(type(x)))} is a container with extra attributes ({', '.join(attributes)}), which "
            "would be lost.",
            "Use a plain list, dict or tuple, or a Module that holds the container and the attributes.",
        )


def flatten_list(x: Any) -> FlattenedNode:
    """Flatten a list, deque or set; a set in an order that depends on its content, as far as that determines one."""
    _refuse_attributes(x)
    base = base_of(type(x))
    children = tuple(base.__iter__(x))
    if base is set:
        refuse_objects(children)
        children = tuple(sorted(children, key=rank))
    return _maxlen.__get__(x) if base is _Deque else None, tuple(range(len(children))), children


def make_list(cls: Any, extra: Any, owner: Any) -> Any:
    """Create an empty list, deque or set of a class."""
    base = base_of(cls)
    new = base.__new__(cls)
    if extra is not None:
        base.__init__(new, (), extra)
    return new


def fill_list(x: Any, extra: Any, keys: tuple[Any, ...], children: Sequence[Any]) -> None:
    """Replace the elements of a list, deque or set."""
    base = base_of(type(x))
    base.clear(x)
    (base.update if base is set else base.extend)(x, children)


def refuse_objects(elements: Iterable[Any]) -> None:
    """Raise StructureError if a set holds a Module or Variable, directly or in a tuple or frozenset."""
    if any(map(_holds_object, elements)):
        raise errors.StructureError(
            "A set holds modules or Variables. A set has no order, so its elements cannot be numbered.",
            "Use a list or a dict.",
        )


def _holds_object(x: Any) -> bool:
    if isinstance(x, (frozenset, tuple)):
        return any(map(_holds_object, x))
    return hasattr(type(x), "__graph_node__")


def flatten_dict(x: Any) -> FlattenedNode:
    """Flatten a dict. Its keys are compared with `==`, so their static keys are kept as well."""
    _refuse_attributes(x)
    base = base_of(type(x))
    items = tuple(base.items(x))
    keys = tuple([k for k, _ in items])
    exact: Any = None
    if not _ALL_STRINGS.issuperset(map(type, keys)):
        for key in keys:
            if hasattr(type(key), "__graph_node__"):
                raise errors.StructureError(
                    f"A dict has {an(type(key))} as a key, but keys must be static.",
                    "Store it as a value, under a string key.",
                )
        exact = tuple([static_key(k) for k in keys])
    factory = Static(default_factory.__get__(x)) if base is _DefaultDict else None
    return (factory, exact), keys, tuple([child for _, child in items])


_ALL_STRINGS = frozenset([str])


def make_dict(cls: Any, extra: Any, owner: Any) -> Any:
    """Create an empty dict of a class."""
    return base_of(cls).__new__(cls)


def fill_dict(x: Any, extra: Any, keys: tuple[Any, ...], children: list[Any]) -> None:
    """Replace the entries and the default factory of a dict."""
    if extra[0] is not None:
        default_factory.__set__(x, extra[0].value)
    fill_entries(x, keys, children)


def fill_entries(x: Any, keys: Sequence[Any], children: Sequence[Any]) -> None:
    """Replace the entries of a dict, but not the default factory of a defaultdict."""
    base = base_of(type(x))
    base.clear(x)
    for key, child in zip(keys, children, strict=True):
        base.__setitem__(x, key, child)  # not `update`: that of a Counter counts


def flatten_tuple(x: Any) -> FlattenedNode:
    """Flatten a tuple; a namedtuple by the names of its fields."""
    _refuse_attributes(x)
    children = tuple(tuple.__iter__(x))
    return None, getattr(x, "_fields", None) or tuple(range(len(children))), children


def unflatten_tuple(cls: type, extra: Any, keys: tuple[Any, ...], children: list[Any]) -> Any:
    """Build a tuple of a class."""
    return tuple.__new__(cls, children)
