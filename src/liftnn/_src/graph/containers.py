"""How lists, sets, dicts and tuples are taken apart, made and filled, without running the code of subclasses.

Only methods of the built-in classes are called. So a subclass with methods of its own, such as a dict that refuses
`__setitem__`, neither does anything nor fails in the middle of a merge or a commit.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from liftnn import errors
from liftnn._src.static_values.static import Static, static_key
from liftnn._src.static_values.value_types import rank
from liftnn._src.trees import an, at_start

Opened = tuple[Any, tuple[Any, ...], Sequence[Any]]
"""What opening a node gives: static extra, keys, children."""

_Deque, _OrderedDict, _DefaultDict = collections.deque, collections.OrderedDict, collections.defaultdict
_BASES = (list, _Deque, set, _OrderedDict, _DefaultDict, dict)  # a class before its base
_maxlen: Any = vars(_Deque)["maxlen"]
_default_factory: Any = vars(_DefaultDict)["default_factory"]


@functools.lru_cache(maxsize=4096)
def base_of(cls: type) -> Any:
    """The built-in container that a class is, or derives from."""
    return next(base for base in _BASES if issubclass(cls, base))


def _refuse_attributes(x: Any) -> None:
    """Raises StructureError for a container with attributes of its own, which have no place to be kept."""
    if getattr(x, "__dict__", None):
        raise errors.StructureError(
            f"{at_start(an(type(x)))} is a container with attributes of its own ({', '.join(vars(x))}).",
            "Use a plain container, or a Module that holds one.",
        )


def flatten_list(x: Any) -> Opened:
    """Takes a list, deque or set apart; a set in an order that depends on its content, as far as that decides."""
    _refuse_attributes(x)
    base = base_of(type(x))
    children = tuple(base.__iter__(x))
    if base is set:
        refuse_objects(children)
        children = tuple(sorted(children, key=rank))
    return _maxlen.__get__(x) if base is _Deque else None, tuple(range(len(children))), children


def make_list(cls: Any, extra: Any, owner: Any) -> Any:
    """An empty list, deque or set of a class."""
    base = base_of(cls)
    new = base.__new__(cls)
    if extra is not None:
        base.__init__(new, (), extra)
    return new


def fill_list(x: Any, extra: Any, keys: tuple[Any, ...], children: Sequence[Any]) -> None:
    """Puts elements into a list, deque or set, in place of those it has."""
    base = base_of(type(x))
    base.clear(x)
    (base.update if base is set else base.extend)(x, children)


def refuse_objects(elements: Iterable[Any]) -> None:
    """Raises StructureError if a Module or Variable is among the elements of a set, or in a tuple or set among them."""
    if any(map(_holds_object, elements)):
        raise errors.StructureError(
            "A set holds modules or Variables, and a set has no order to number them by.",
            "Use a list or a dict.",
        )


def _holds_object(x: Any) -> bool:
    if isinstance(x, (frozenset, tuple)):
        return any(map(_holds_object, x))
    return hasattr(type(x), "__graph_node__")


def flatten_dict(x: Any) -> Opened:
    """Takes a dict apart. Beside its keys, which are compared with `==`, their static keys are kept."""
    _refuse_attributes(x)
    base = base_of(type(x))
    items = tuple(base.items(x))
    keys = tuple([k for k, _ in items])
    exact: Any = None
    if not _ALL_STRINGS.issuperset(map(type, keys)):
        for key in keys:
            if hasattr(type(key), "__graph_node__"):
                raise errors.StructureError(
                    f"A dict has {an(type(key))} as a key.", "Use it as a value, under a string."
                )
        exact = tuple([static_key(k) for k in keys])
    factory = Static(_default_factory.__get__(x)) if base is _DefaultDict else None
    return (factory, exact), keys, tuple([child for _, child in items])


_ALL_STRINGS = frozenset([str])


def make_dict(cls: Any, extra: Any, owner: Any) -> Any:
    """An empty dict of a class."""
    return base_of(cls).__new__(cls)


def fill_dict(x: Any, extra: Any, keys: tuple[Any, ...], children: list[Any]) -> None:
    """Puts entries into a dict, in place of those it has."""
    if extra[0] is not None:
        _default_factory.__set__(x, extra[0].value)
    fill_entries(x, keys, children)


def fill_entries(x: Any, keys: Sequence[Any], children: Sequence[Any]) -> None:
    """The same, but for what makes the defaults of a defaultdict."""
    base = base_of(type(x))
    base.clear(x)
    for key, child in zip(keys, children, strict=True):
        base.__setitem__(x, key, child)  # not `update`, which in a Counter counts


def flatten_tuple(x: Any) -> Opened:
    """Takes a tuple apart, a namedtuple by the names of its fields."""
    _refuse_attributes(x)
    children = tuple(tuple.__iter__(x))
    return None, getattr(x, "_fields", None) or tuple(range(len(children))), children


def unflatten_tuple(cls: type, extra: Any, keys: tuple[Any, ...], children: list[Any]) -> Any:
    """A tuple of a class."""
    return tuple.__new__(cls, children)
