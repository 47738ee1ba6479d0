"""The walk: from live objects to node specs and arrays, in one depth-first pass without recursion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn.graph import frames
from liftnn.graph.description import ARRAY as ARRAY_EDGE, KEEP, Edge, NodeSpec, find_holders, keep_leaves
from liftnn.graph.kinds import (
    ARRAY,
    FLOAT,
    MODULE,
    PYTREE,
    SIMPLE,
    STATIC,
    VARIABLE,
    NodeKind,
    classify,
    kind_by_type,
)
from liftnn.graph.static import NotImmutableError, Static, immutable_key
from liftnn.graph.variable import Variable
from liftnn.trees import Key, Path, format_path


class _Open:
    """A node whose children are being walked."""

    __slots__ = ("arrays", "children", "edges", "extra", "keys", "kind", "number", "type")

    def __init__(
        self, number: int, kind: NodeKind, cls: type, extra: Any, keys: Sequence[Key], children: Sequence[Any]
    ):
        self.number = number
        self.kind = kind
        self.type = cls
        self.extra = extra
        self.keys = keys
        self.children = children
        self.edges: list[Edge] = []
        self.arrays: list[Any] = []


class Walk:
    """Objects by number, with their specs and bare arrays.

    Args:
      root: What the paths in messages start from.
    """

    def __init__(self, root: str = ""):
        self.root = root
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.specs: list[NodeSpec | None] = []
        self.arrays: list[list[Any]] = []
        self.frozen: list[int] = []
        self._statics: dict[int, tuple[Any, Static]] = {}

    def visit(self, value: Any, path: Path = ()) -> tuple[Edge, list[Any]]:
        """Walks everything that `value` reaches.

        Args:
          value: An object or leaf.
          path: Where it stands, for messages.

        Returns:
          Its edge, and its array in a list if it is one.

        Raises:
          StructureError: If something in it cannot be part of a module; the message names its path.
        """
        top = _Open(-1, STATIC, object, None, (), (value,))
        stack = [top]
        try:
            while True:
                node = stack[-1]
                deeper = self._walk_children(node)
                if deeper is not None:
                    stack.append(deeper)
                elif node is top:
                    return top.edges[0], top.arrays
                else:
                    self._check_can_be_built(node)
                    self._close(node)
                    stack.pop()
        except errors.StructureError as error:
            where = self._where((*path, *_keys(stack)))
            raise errors.StructureError(f"{where}: {error.cause}", error.remedy) from error.__cause__

    def finished_specs(self) -> tuple[NodeSpec, ...]:
        """The specs, when every object has been walked."""
        return tuple(self.specs)  # pyright: ignore[reportReturnType]  # None stands for one not walked yet

    def _where(self, path: Path) -> str:
        """A path from the start of the current visit, in words."""
        return format_path(path, self.root)

    def _walk_children(self, node: _Open) -> _Open | None:
        """Appends edges until the children are done (None) or one must be walked first (that one)."""
        edges, children = node.edges, node.children
        for position in range(len(edges), len(children)):
            child = children[position]
            cls = type(child)
            kind = kind_by_type(cls) or classify(child)
            if kind is SIMPLE:
                edges.append((cls, child))
            elif kind is ARRAY:
                edges.append(ARRAY_EDGE)
                node.arrays.append(child)
            elif kind is FLOAT:
                # 0.0 == -0.0, yet they differ; nan != nan, yet they do not
                edges.append((cls, child) if child and child == child else Static(child))
            elif kind is STATIC:
                edges.append(self._static(child))
            else:
                static = _static_if_immutable(kind, child) if kind.frozen else None
                if static is not None:
                    edges.append(static)
                    continue
                number, deeper = self._enter(kind, cls, child)
                edges.append(number)
                if deeper is not None:
                    return deeper
        return None

    def _enter(self, kind: NodeKind, cls: type, child: Any) -> tuple[int, _Open | None]:
        """The number of a node, and the opened node if it has not been walked yet."""
        number = self.numbers.get(id(child))
        if number is not None and self.specs[number] is not None:
            return number, None
        if number is None:
            number = self._add(child)
        if kind is VARIABLE:
            metadata = child._metadata
            if metadata.key is not None:
                self.specs[number] = NodeSpec(kind, cls, metadata, (), ())
                self._close_variable(number)
                return number, None
        extra, keys, children = kind.open(child)
        self.specs[number] = _OPENED_FROZEN if kind.frozen else _OPENED
        return number, _Open(number, kind, cls, extra, keys, children)

    def _static(self, value: Any) -> Static:
        """The edge of a static value that is not of a simple type; many layers share one, whose key takes long."""
        found = self._statics.get(id(value))
        if found is None:
            found = self._statics[id(value)] = (value, _static(value))
        return found[1]

    def _add(self, child: Any) -> int:
        """Gives a new object the next number."""
        number = len(self.objects)
        self.objects.append(child)
        self.numbers[id(child)] = number
        self.specs.append(None)
        self.arrays.append([])
        return number

    def _check_can_be_built(self, node: _Open) -> None:
        """Refuses a cycle of frozen nodes alone: each would have to be built before the other."""
        if node.kind.frozen and any(type(e) is int and self.specs[e] is _OPENED_FROZEN for e in node.edges):
            raise errors.StructureError(
                f"A {node.type.__name__} and what it holds form a cycle in which nothing can be changed, so it cannot "
                "be built anew.",
                "Put a list, a dict or a Module into the cycle.",
            )

    def _close_variable(self, number: int) -> None:
        """Called when a Variable without children is done."""

    def _close(self, node: _Open) -> None:
        """Called when all children of a node have their edges."""
        self.specs[node.number] = NodeSpec(
            node.kind, node.type, node.extra, tuple(node.keys), tuple(node.edges)
        )
        self.arrays[node.number] = node.arrays
        if node.kind.frozen:
            self.frozen.append(node.number)


def _keys(stack: list[_Open]) -> Path:
    """The keys that lead from the start of a walk to the child, or node, that it is at."""
    keys = [node.keys[len(node.edges) - 1] for node in stack[1:-1]]
    last = stack[-1]
    return (*keys, last.keys[len(last.edges)]) if len(last.edges) < len(last.keys) else tuple(keys)


_OPENED = NodeSpec(STATIC, object, None, (), ())
"""Stands for the spec of a node while its children are walked."""
_OPENED_FROZEN = NodeSpec(STATIC, object, None, (), ())
"""The same for a frozen node."""


_PASSED = object()
"""In place of the static extra of a known node that is passed by: only some of its children are walked."""


def _static(value: Any) -> Static:
    """The edge of a static value that is not of a simple type."""
    if isinstance(value, (set, frozenset)) and _holds_object(value):
        raise errors.StructureError(
            "A set holds modules or Variables, and a set has no order to number them by.",
            "Use a list or a dict.",
        )
    return Static(value)


def _holds_object(x: Any) -> bool:
    """Whether a hashable container has a Module or Variable in it."""
    if isinstance(x, (set, frozenset, tuple)):
        return any(map(_holds_object, x))
    return hasattr(type(x), "__graph_node__")


def _static_if_immutable(kind: NodeKind, value: Any) -> Static | None:
    """The static edge of a frozen node that holds nothing but immutable values, else None."""
    if kind is PYTREE:
        return None
    if isinstance(value, tuple) and any(
        isinstance(x, jax.Array) or hasattr(type(x), "__graph_node__") for x in value
    ):
        return None  # the common case, without the exception below
    try:
        immutable_key(value)
        return Static(value)
    except (NotImmutableError, RecursionError):  # nested too deep to be compared in one go: node by node then
        return None


class Rewalk(Walk):
    """The walk after a call: what has become of objects that were numbered before it.

    Known objects keep their numbers. A known node that is as it was contributes nothing; of one that changed, the
    unchanged parts become `KEEP`.

    Args:
      before: The walk, or merge, before the call.
      owner: The frame in which the call ran: nothing else may be attached.
      returned: For each known node whether its arrays must be returned even if unchanged (they were donated).
      paths: Gives the path of a known node, for messages.
    """

    def __init__(self, before: Any, owner: Any, returned: Sequence[bool] | None, paths: Any):
        super().__init__()
        self.before = before
        self.owner = owner
        self.returned = returned
        self.paths = paths
        self.known = len(before.objects)
        self.objects = list(before.objects)
        self.numbers = {id(x): i for i, x in enumerate(self.objects)}
        self.specs = [None] * self.known
        self.arrays = [[] for _ in self.objects]
        self.changed: set[int] = set()
        self._start: int | None = None
        """The known object that is being visited."""

    def visit_known(self) -> None:
        """Walks the known objects that have not been reached yet."""
        for number in range(self.known):
            if self.specs[number] is None:
                self._start = number
                self.visit(self.objects[number])
        self._replace_frozen()

    def _where(self, path: Path) -> str:
        if self._start is None:
            return super()._where(path)
        root, start = self.paths(self._start)
        return format_path((*start, *path), root)

    def _enter(self, kind: NodeKind, cls: type, child: Any) -> tuple[int, _Open | None]:
        number = self.numbers.get(id(child))
        if number is not None and number < self.known and self.specs[number] is None:
            rest = self._pass(number, cls, child)
            if rest is not None:
                return number, _Open(number, kind, cls, _PASSED, *zip(*rest, strict=True)) if rest else None
        if number is None:
            copy = frames.known_here(child)  # a captured object stands where its copy belongs
            if id(copy) in self.numbers:
                child = copy
            else:
                self._check_owner(kind, child)
        elif number < self.known and kind is PYTREE and self._pytree_changed(number, child):
            del self.numbers[id(child)]  # changed in place: on the outside it will be a new one
        return super()._enter(kind, cls, child)

    def _pass(self, number: int, cls: type, child: Any) -> list[tuple[Key, Any]] | None:
        """Passes by a known object that is as the merge has left it, which takes less than to walk it.

        Returns:
          Those of its children, with their keys, that are still to be walked. None if it is to be walked itself.
        """
        if self._pass_variable(number, child):
            return []
        spec, given = self.before.specs[number], self.before.children.get(number)
        if given is None or cls is not spec.type or (self.returned is not None and self.returned[number]):
            return None
        extra, keys, children = spec.kind.open(child)
        if keys != spec.keys or extra != spec.extra or not all(map(_is, children, given)):
            return None
        pairs = list(zip(spec.edges, keys, children, strict=True))
        if any(type(edge) is Static and edge != self._static(x) for edge, _, x in pairs):
            return None
        self.specs[number] = spec
        return [
            (key, x)
            for edge, key, x in pairs
            if type(edge) is int and self.specs[edge] is None and not self._pass_variable(edge, x)
        ]

    def _pass_variable(self, number: int, x: Any) -> bool:
        """Passes by a known Variable that has the metadata that it had; whether it did."""
        spec: NodeSpec = self.before.specs[number]
        if type(x) is not spec.type or spec.kind is not VARIABLE or x._metadata is not spec.extra:
            return False
        self.specs[number] = spec
        return True

    def _replace_frozen(self) -> None:
        """A frozen node that must be built anew changes every node that holds it."""
        known = [spec for spec in self.specs[: self.known] if spec is not None]  # all are walked by now
        for i in find_holders(known, self.changed):
            self.specs[i] = keep_leaves(known[i])
            self.changed.add(i)

    def _check_owner(self, kind: NodeKind, child: Any) -> None:
        """Asks for an object of an outer frame that is no input yet; refuses one of a trace that is over."""
        if kind is VARIABLE or kind is MODULE:
            owner = child._owner
            if isinstance(owner, frames.Frame) and owner is not self.owner:
                if frames.frames_up_to(child) is not None:
                    raise frames.Missing([child])
                raise errors.StructureError(
                    f"A {type(child).__name__} that was made in a call which is over was put here or returned.",
                    "Return it from that call, or attach it to a module that was an argument there.",
                )

    def _pytree_changed(self, number: int, child: Any) -> bool:
        old = self.before.pytree_children.get(number)
        if old is None:
            return False
        new = jax.tree.leaves(child, is_leaf=lambda y: y is not child)
        return len(new) != len(old) or any(a is not b for a, b in zip(new, old, strict=True))

    def _close_variable(self, number: int) -> None:
        if number < self.known and self.specs[number] != self.before.specs[number]:
            self.changed.add(number)

    def _close(self, node: _Open) -> None:
        if node.extra is _PASSED:
            return
        number = node.number
        if number >= self.known:
            super()._close(node)
            return
        old: NodeSpec = self.before.specs[number]
        old_arrays = self.before.arrays[number]
        spec = NodeSpec(node.kind, node.type, node.extra, tuple(node.keys), tuple(node.edges))
        self.specs[number] = spec
        must_return = self.returned is not None and self.returned[number] and bool(old_arrays)
        same_arrays = len(old_arrays) == len(node.arrays) and all(map(_is, old_arrays, node.arrays))
        if spec == old and same_arrays and not must_return:
            return
        if node.kind.frozen:
            if spec != old:
                raise errors.StructureError(
                    f"A {node.type.__name__} was changed in place.",
                    "Assign a new one to the attribute instead.",
                )
            if not must_return:
                return
        self.changed.add(number)
        kept = {} if must_return else _places(old, old_arrays)
        edges, arrays, at = [], [], iter(node.arrays)
        for key, edge in zip(spec.keys, spec.edges, strict=True):
            array = next(at) if edge is ARRAY_EDGE else None
            if type(edge) is not int and key in kept and kept[key][0] == edge and kept[key][1] is array:
                edges.append(KEEP)
                continue
            edges.append(edge)
            if edge is ARRAY_EDGE:
                arrays.append(array)
        self.specs[number] = spec._replace(edges=tuple(edges))
        self.arrays[number] = arrays


def _is(a: Any, b: Any) -> bool:
    return a is b


def _places(spec: NodeSpec, arrays: list[Any]) -> dict[Key, tuple[Edge, Any]]:
    """The edge, and the array if it is one, at each key of a node."""
    at = iter(arrays)
    return {k: (e, next(at) if e is ARRAY_EDGE else None) for k, e in zip(spec.keys, spec.edges, strict=True)}


def changed_value(variable: Variable[Any], given: Any) -> bool:
    """Whether a Variable holds something else than the value it was given."""
    value = variable._value
    if value is given.value:
        if given.leaves is None:
            return False
        leaves, treedef = jax.tree.flatten(value)
        return treedef != given.treedef or not all(map(_is, leaves, given.leaves))
    return True
