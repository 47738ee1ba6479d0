"""Check that objects whose changes liftnn cannot observe are unchanged: lists, dicts, dataclasses, exposed modules.

Elements are compared by identity. No user code runs: containers are read by the methods of the built-in class.
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
from liftnn._src.graph.containers import base_of
from liftnn._src.graph.description import NodeSpec
from liftnn._src.graph.kinds import FUNCTION, MODULE, PARTIAL, PYTREE, VARIABLE
from liftnn._src.graph.slots import ARRAY
from liftnn._src.trees import is_array, module_of


class Check(Protocol):
    """A check of one thing that a call depends on."""

    def holds(self) -> bool:
        """Return whether it is unchanged."""
        ...


class _Absent:
    """The type of `ABSENT`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "nothing"


ABSENT = _Absent()
"""The value of a missing key or an empty cell."""

ATOMS: set[type] = {str, bytes, int, float, complex, bool, type(None), np.ndarray}
"""Classes of leaves, which hold no modules; more are added when they are first seen."""
_ATOM_BASES = (str, bytes, int, float, complex, np.ndarray, np.generic, np.dtype)


def is_atom(x: Any) -> bool:
    """Return whether `x` is a leaf that holds no module: a number, a string, an array or None."""
    cls = type(x)
    if cls in ATOMS:
        return True
    known = issubclass(cls, _ATOM_BASES) or (module_of(cls).startswith("jax") and isinstance(x, jax.Array))
    if known:
        ATOMS.add(cls)
    return known


class Elements(NamedTuple):
    """A container and its elements at the time of the check's creation.

    Args:
      container: The container.
      iterate: Iterates over its elements without running user code; for a dict, over its keys, then its values.
      kept: The elements, as many as were examined.
      loose: For each element, whether another leaf may replace it.
      size: The number of elements.
      ordered: Whether the order of a dict matters.
    """

    container: Any
    iterate: Callable[[Any], Iterable[Any]]
    kept: tuple[Any, ...]
    loose: tuple[bool, ...]
    size: int
    ordered: bool = True

    def holds(self) -> bool:
        """Return whether it has the same elements, in the same order."""
        if size_of(self.container) != self.size:
            return False
        if all(map(is_, self.iterate(self.container), self.kept)):
            return True
        pairs = zip(self.iterate(self.container), self.kept, self.loose)  # noqa: B905  # only the first were examined
        return all(x is y or (loose and type(x) in ATOMS) for x, y, loose in pairs)


def size_of(container: Any) -> int:
    """Return the number of elements of a container, without calling an overridden `__len__`."""
    for base in ITERATORS:
        if issubclass(type(container), base):
            return base.__len__(container)
    return len(container)


def list_entries(mapping: dict[Any, Any]) -> Iterable[Any]:
    """Return the keys of a dict, then its values."""
    base = base_of(type(mapping))
    return itertools.chain(base.keys(mapping), base.values(mapping))


def read_elements(iterate: Callable[[Any], Iterable[Any]], container: Any) -> tuple[Any, ...]:
    """Return the elements of a container, all as they were at one time, while other threads may change it.

    Args:
      iterate: Iterates over the elements without running user code, and creates no objects.
      container: The container.
    """
    while True:
        try:
            return tuple(iterate(container))
        except RuntimeError:  # a dict, set or deque has changed since the iteration began
            continue


def split_entries(entries: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the keys and the values of a dict from its entries, in the order of `list_entries`."""
    size = len(entries) // 2
    return entries[:size], entries[size:]


ITERATORS: dict[Any, Callable[[Any], Iterable[Any]]] = {
    base: list_entries if base is dict else base.__iter__
    for base in (list, dict, set, collections.deque, tuple, frozenset)
}
"""The built-in containers, with how to iterate over their elements without running user code."""


class Node(NamedTuple):
    """A node with array leaves, or of a kind without elements to compare one by one.

    Args:
      x: The object.
      spec: Its spec.
      kept: Its children; None for arrays, which may be replaced by other arrays.
    """

    x: Any
    spec: NodeSpec
    kept: tuple[Any, ...]

    def holds(self) -> bool:
        """Return whether it has the same class, keys and children, and arrays at the same keys."""
        if type(self.x) is not self.spec.type:
            return False
        extra, keys, children = self.spec.kind.flatten(self.x)
        if keys != self.spec.keys or extra != self.spec.extra:
            return False
        return all(map(_same, children, self.kept, self.spec.edges))


def _same(child: Any, kept: Any, edge: Any) -> bool:
    return is_array(child) if edge is ARRAY else child is kept


class Whole(NamedTuple):
    """A function or partial, and all children that it had, arrays too."""

    x: Any
    spec: NodeSpec
    kept: tuple[Any, ...]

    def holds(self) -> bool:
        """Return whether it has the same static part and the same children."""
        extra, keys, children = self.spec.kind.flatten(self.x)
        return keys == self.spec.keys and all(map(is_, children, self.kept)) and extra == self.spec.extra


class Attributes(NamedTuple):
    """The attributes of a Module that may be written without notice.

    Args:
      module: A weak reference to the module: it may be an argument, which must not be kept alive.
      spec: Its spec.
      kept: Its attributes.
      address: The id of its attribute dictionary.
    """

    module: weakref.ref[Any]
    spec: NodeSpec
    kept: tuple[Any, ...]
    address: int

    def holds(self) -> bool:
        """Return whether it has the same attributes, and arrays under the same names."""
        x = self.module()
        if id(attributes_of(x)) != self.address:
            return False
        _, keys, children = flatten_attributes(x)
        return keys == self.spec.keys and all(map(_same, children, self.kept, self.spec.edges))

    def follow(self, old: Any, new: Any) -> Attributes:
        """Return the check that expects a new object in place of an old one."""
        return self._replace(kept=tuple([new if x is old else x for x in self.kept]))


def check_node(x: Any, spec: NodeSpec, children: tuple[Any, ...]) -> list[Check]:
    """Create the check of one node.

    Args:
      x: The object.
      spec: Its spec.
      children: Its children.

    Returns:
      A list with the check; an empty list if liftnn observes changes of the object, or if it cannot change.
    """
    if spec.kind is MODULE:
        return [Attributes(weakref.ref(x), spec, children, id(attributes_of(x)))] if is_exposed(x) else []
    if spec.kind is FUNCTION or spec.kind is PARTIAL:  # whose dicts can be changed
        return [Whole(x, spec, children)]
    if spec.kind is VARIABLE or (spec.kind.frozen and spec.kind is not PYTREE):
        return []
    if hasattr(spec.type, "__fixed_entries__") and ARRAY not in spec.edges:
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
