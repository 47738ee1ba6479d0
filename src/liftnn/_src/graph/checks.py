"""Whether objects that cannot notify of a change are as they were: lists, dicts, dataclasses, exposed modules.

Elements are compared by identity. No code of the user's runs: containers are read by the methods of the built-in class.
"""

from __future__ import annotations

import collections
import itertools
import weakref
from collections.abc import Callable, Iterable
from operator import is_
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from liftnn._src.graph.attributes import attributes_of, flatten_attributes, is_exposed
from liftnn._src.graph.containers import base_of, fill_entries, fill_list
from liftnn._src.graph.description import NodeSpec
from liftnn._src.graph.kinds import FUNCTION, MODULE, PYTREE, VARIABLE
from liftnn._src.graph.slots import ARRAY
from liftnn._src.trees import is_array, module_of


class Check(Protocol):
    """Something that a call depends on."""

    def holds(self) -> bool:
        """Whether it is as it was."""
        ...


class _Absent:
    """The type of `ABSENT`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "nothing"


ABSENT = _Absent()
"""What stands where there is no such key, or in an empty cell."""

ATOMS: set[type] = {str, bytes, int, float, complex, bool, type(None), np.ndarray}
"""Classes whose instances lead to no module; more are added when they are first seen."""
_ATOM_BASES = (str, bytes, int, float, complex, np.ndarray, np.generic, np.dtype)


def is_atom(x: Any) -> bool:
    """Whether nothing that `x` could lead to is of interest: a number, a string, an array, None."""
    cls = type(x)
    if cls in ATOMS:
        return True
    known = issubclass(cls, _ATOM_BASES) or (module_of(cls).startswith("jax") and isinstance(x, jax.Array))
    if known:
        ATOMS.add(cls)
    return known


class Elements(NamedTuple):
    """A container and the elements that it had.

    Args:
      container: The container.
      iterate: Gives its elements without running code of the user's; of a dict its keys, then its values.
      kept: The elements, as far as they were looked at.
      loose: For each whether another atom will do.
      size: How many elements it had.
      ordered: Whether the order of a dict matters.
    """

    container: Any
    iterate: Callable[[Any], Iterable[Any]]
    kept: tuple[Any, ...]
    loose: tuple[bool, ...]
    size: int
    ordered: bool = True

    def holds(self) -> bool:
        """Whether it has the same elements, in the same order."""
        if size_of(self.container) != self.size:
            return False
        if all(map(is_, self.iterate(self.container), self.kept)):
            return True
        pairs = zip(self.iterate(self.container), self.kept, self.loose)  # noqa: B905  # only the first were kept
        return all(x is y or (loose and type(x) in ATOMS) for x, y, loose in pairs)

    def restore(self) -> None:
        """Puts the elements back, if they were all looked at, without running code of the user's."""
        x, kept, size = self.container, self.kept, self.size
        if issubclass(type(x), dict):
            if len(kept) == 2 * size:
                fill_entries(x, kept[:size], kept[size:])
        elif len(kept) == size:
            fill_list(x, None, (), kept)


def size_of(container: Any) -> int:
    """How many elements a container has, past a `__len__` of its own."""
    for base in _SIZED:
        if issubclass(type(container), base):
            return base.__len__(container)
    return len(container)


_SIZED: tuple[Any, ...] = (list, dict, set, collections.deque, tuple, frozenset)


def list_entries(mapping: dict[Any, Any]) -> Iterable[Any]:
    """The keys of a dict, then its values."""
    base = base_of(type(mapping))
    return itertools.chain(base.keys(mapping), base.values(mapping))


class Node(NamedTuple):
    """A node with array leaves, or of a kind that has no elements to compare one by one.

    Args:
      x: The object.
      spec: Its spec.
      kept: Its children; None in place of arrays, which may be replaced by other arrays.
    """

    x: Any
    spec: NodeSpec
    kept: tuple[Any, ...]

    def holds(self) -> bool:
        """Whether it has the same class, keys and children, and arrays where it had arrays."""
        if type(self.x) is not self.spec.type:
            return False
        extra, keys, children = self.spec.kind.flatten(self.x)
        if keys != self.spec.keys or extra != self.spec.extra:
            return False
        return all(map(_same, children, self.kept, self.spec.edges))


def _same(child: Any, kept: Any, edge: Any) -> bool:
    return is_array(child) if edge is ARRAY else child is kept


class Function(NamedTuple):
    """A function and what it held."""

    x: Any
    spec: NodeSpec
    kept: tuple[Any, ...]

    def holds(self) -> bool:
        """Whether it has the same code and cells, and the same defaults and attributes."""
        extra, keys, children = self.spec.kind.flatten(self.x)
        return keys == self.spec.keys and all(map(is_, children, self.kept)) and extra == self.spec.extra


class Attributes(NamedTuple):
    """The attributes of a Module that may be written without notice.

    Args:
      module: The module, weakly: it may be an argument, which must not be kept alive.
      spec: Its spec.
      kept: Its attributes.
      address: The id of the dictionary that holds them.
    """

    module: weakref.ref[Any]
    spec: NodeSpec
    kept: tuple[Any, ...]
    address: int

    def holds(self) -> bool:
        """Whether it has the same attributes, and arrays where it had arrays."""
        x = self.module()
        if id(attributes_of(x)) != self.address:
            return False
        _, keys, children = flatten_attributes(x)
        return keys == self.spec.keys and all(map(_same, children, self.kept, self.spec.edges))


def check_node(x: Any, spec: NodeSpec, children: tuple[Any, ...]) -> list[Check]:
    """The check of one node.

    Args:
      x: The object.
      spec: Its spec.
      children: Its children.

    Returns:
      The check in a list; nothing if the object notifies of its changes, or has none.
    """
    if spec.kind is MODULE:
        return [Attributes(weakref.ref(x), spec, children, id(attributes_of(x)))] if is_exposed(x) else []
    if spec.kind is FUNCTION:
        return [Function(x, spec, children)]
    if spec.kind is VARIABLE or (spec.kind.frozen and spec.kind is not PYTREE):
        return []
    if ARRAY not in spec.edges:
        size = len(children)
        if type(x) in (list, collections.deque):
            return [Elements(x, type(x).__iter__, children, (False,) * size, size)]
        if type(x) in (dict, collections.OrderedDict):
            return [Elements(x, list_entries, (*x, *children), (False,) * 2 * size, size)]
    return [
        Node(x, spec, tuple([None if e is ARRAY else c for e, c in zip(spec.edges, children, strict=True)]))
    ]
