"""The outline of a module: the tree of all that it holds, each object once, later occurrences as references.

The walk has its own stack, so the depth of a model does not matter, and takes linear time. It reads objects without
running a transform's bookkeeping, so it may look at objects of other traces; an object that cannot be read is a leaf.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Iterator
from typing import Any

import jax

from liftnn import errors
from liftnn._src.graph.kinds import (
    ARRAY_NODE,
    BUILTIN_METHOD,
    CELL,
    FLOAT,
    FUNCTION,
    METHOD,
    MODULE,
    SIMPLE,
    STATIC,
    VARIABLE,
    NodeKind,
    classify,
    is_object,
    kind_by_type,
)
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.modules.module import Module
from liftnn._src.trees import Path, an
from liftnn._src.variables.variable import Variable

_LEAF_KINDS = (SIMPLE, FLOAT, STATIC)


def check_has_modules(function: str, tree: Any) -> None:
    """Raise ArgumentTypeError for something that is not a module and cannot hold one, such as a number or a class.

    Args:
      function: The name of the public function.
      tree: Its argument.

    Raises:
      ArgumentTypeError: If it is a class, or a leaf that reaches neither modules nor Variables.
    """
    is_class = isinstance(tree, type)
    if not is_class and (is_object(tree) or not jax.tree_util.all_leaves([tree])):
        return
    if is_class or not any(isinstance(x, (Module, Variable)) for _, x in iter_graph(tree)):
        found = f"the class {tree.__qualname__}" if is_class else an(type(tree))
        raise errors.ArgumentTypeError(
            f"{function} takes a module or a tree of modules, not {found}.",
            f"Create the module: `{tree.__qualname__}(...)`." if is_class else "Pass the module itself.",
        )


class OutlineEntry:
    """One occurrence of a value in an outline.

    Args:
      key: The attribute, position or dict key under which the holder has it.
      value: The value.
      kind: Its kind of node, or `ARRAY_NODE` or `STATIC`.
      above: The entry of the holder; None at the root. It is referred to weakly.
    """

    __slots__ = ("__weakref__", "_above", "below", "first", "key", "kind", "state", "value")

    def __init__(self, key: Any, value: Any, kind: NodeKind, above: OutlineEntry | None):
        self.key = key
        self.value = value
        self.kind = kind
        self._above = None if above is None else weakref.ref(above)  # a cycle would keep the arrays alive
        self.below: list[OutlineEntry] = []
        self.first: OutlineEntry | None = None
        """The first entry of the same object; None if this is the first."""
        self.state = False
        """Whether it is, or holds, a module, a Variable or an array."""

    @property
    def above(self) -> OutlineEntry | None:
        """The entry of the holder, while the outline exists; None at the root."""
        return None if self._above is None else self._above()

    @property
    def path(self) -> Path:
        """The path from the root."""
        keys: list[Any] = []
        entry = self
        while (above := entry.above) is not None:
            keys.append(entry.key)
            entry = above
        return tuple(keys[::-1])

    def is_inside(self, other: OutlineEntry) -> bool:
        """Return whether another entry is this one or holds it, directly or not."""
        return any(entry is other for entry in self.ancestors())

    def ancestors(self) -> Iterator[OutlineEntry]:
        """Yield this entry, its holder, and so on up to the root."""
        entry: OutlineEntry | None = self
        while entry is not None:
            yield entry
            entry = entry.above

    def walk(self) -> Iterator[OutlineEntry]:
        """Yield this entry and all below it, depth first."""
        todo = [self]
        while todo:
            entry = todo.pop()
            yield entry
            todo += entry.below[::-1]


def outline(root: Any) -> OutlineEntry:
    """Return the outline of an object.

    Args:
      root: A module, a Variable, or any value.

    Returns:
      The entry of the root.
    """
    top = OutlineEntry(None, root, _kind(root), None)
    seen: dict[int, OutlineEntry] = {}
    order: list[OutlineEntry] = []
    todo = [top]
    while todo:
        entry = todo.pop()
        order.append(entry)
        if entry.kind in _LEAF_KINDS or entry.kind is ARRAY_NODE:
            entry.state = entry.kind is ARRAY_NODE
            continue
        first = seen.setdefault(id(entry.value), entry)
        if first is not entry:
            entry.first = first
            continue
        entry.state = entry.kind is VARIABLE or entry.kind is MODULE
        entry.below = [OutlineEntry(key, x, _kind(x), entry) for key, x in _children(entry)]
        todo += entry.below[::-1]
    _spread_state(order)
    return top


def shallow(x: Any) -> OutlineEntry:
    """Return the entry of an object with those of its attributes, and nothing below them."""
    top = OutlineEntry(None, x, _kind(x), None)
    top.below = [OutlineEntry(key, child, _kind(child), top) for key, child in _children(top)]
    return top


def _spread_state(order: list[OutlineEntry]) -> None:
    """Mark the entries that hold something with state, directly or through others; also those of shared objects."""
    for entry in reversed(order):
        if entry.state and (above := entry.above) is not None:
            above.state = True
    todo = [entry for entry in order if entry.first is not None and entry.first.state]
    while todo:
        entry: OutlineEntry | None = todo.pop()
        while entry is not None and not entry.state:
            entry.state = True
            entry = entry.above


def _kind(x: Any) -> NodeKind:
    """Return the kind of a value; static if a class of the user's cannot be examined."""
    try:
        return kind_by_type(type(x)) or classify(x)
    except Exception:
        return STATIC


def _children(entry: OutlineEntry) -> list[tuple[Any, Any]]:
    """Return the keys and children of a node that may hold modules; nothing if it cannot be read."""
    x, kind = entry.value, entry.kind
    try:
        if kind is VARIABLE:  # its metadata are shown with it
            return []
        if kind in (METHOD, BUILTIN_METHOD):
            return [("__self__", x.__self__)]
        if kind is CELL:
            return [("cell_contents", x.cell_contents)]
        if kind is FUNCTION:
            return _captured(x)
        _, keys, children = kind.flatten(x)
        return list(zip(keys, children, strict=True))
    except Exception:
        return []


def _captured(function: types.FunctionType) -> list[tuple[Any, Any]]:
    """Return what a function captures, and its defaults, by name."""
    names = function.__code__.co_freevars
    found = [(name, _contents(cell)) for name, cell in zip(names, function.__closure__ or (), strict=True)]
    defaults = function.__defaults__ or ()
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
    found += zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True)
    found += (function.__kwdefaults__ or {}).items()
    return [(name, x) for name, x in found if x is not None]


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None
