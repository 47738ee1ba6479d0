"""The walk: flatten live objects into node specs and arrays, in one depth-first pass without recursion."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any, TypeVar

import jax

from liftnn import errors
from liftnn._src.graph.build_order import cycle_error, in_build_order
from liftnn._src.graph.containers import refuse_objects
from liftnn._src.graph.description import Edge, NodeSpec
from liftnn._src.graph.hidden import is_called, warn_if_hidden
from liftnn._src.graph.kinds import (
    ARRAY_NODE,
    BUILTIN_METHOD,
    CELL,
    FLOAT,
    FUNCTION,
    MODULE,
    PYTREE,
    REFERENCE,
    SIMPLE,
    STATIC,
    VARIABLE,
    Incomparable,
    NodeKind,
    classify,
    is_object,
    kind_by_type,
)
from liftnn._src.graph.slots import ARRAY
from liftnn._src.static_values.static import NotImmutableError, Static, immutable_key, static_key
from liftnn._src.trees import Key, Path, format_path, is_argument_array, is_jax_array, static_parts
from liftnn._src.variables import frames
from liftnn._src.variables.holding import held_containers

T = TypeVar("T")
Sharing = dict[int, Any]
"""Functions and weak references, by id."""
_HOLDERS: dict[type, NodeKind] = {FunctionType: FUNCTION, weakref.ref: REFERENCE}


class OpenNode:
    """A node with children that are being visited."""

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


class SharedContainer(Exception):  # noqa: N818  # not an error: see `walk_again`
    """Raised if a container is reached that is held by something that was taken for a static value.

    Args:
      holder: The function or weak reference that holds it.
    """

    def __init__(self, holder: Any):
        self.holder = holder


def static_in_value(value: Any) -> Iterator[Any]:
    """Yield what is not an array in the value of a Variable."""
    try:
        leaves, treedef = jax.tree.flatten(value, is_leaf=is_object)
    except ValueError:  # keys that cannot be sorted: `value_sharing` raises an error with the path
        return
    yield from (x for x in leaves if not is_argument_array(x))
    yield from static_parts(treedef)


def walk_again(walk: Callable[[Sharing], T]) -> T:
    """Make a walk; make it again for each function or weak reference that shares a container with the graph.

    Such a function must be a node, so that both refer to one copy inside a transform. Whether it is one is known only
    after the container was reached. What only functions hold stays outside of the graph.

    Args:
      walk: Makes the walk, given the functions and weak references that are nodes for this reason.

    Returns:
      What it returns.
    """
    sharing: Sharing = {}
    while True:
        try:
            return walk(sharing)
        except SharedContainer as found:
            sharing[id(found.holder)] = found.holder


class Walk:
    """Objects by number, with their specs and array leaves.

    Args:
      root: The text that paths in messages start with.
      sharing: The functions and weak references that share a container with the graph; see `walk_again`. The default,
        None, does not look for them.
    """

    warns = True
    """Whether to warn of modules inside static objects."""
    _frame: Any = None
    """The frame of which objects need no resolving; the default, None, means none."""

    def __init__(self, root: str = "", sharing: Sharing | None = None):
        self.root = root
        self._sharing = sharing
        self._static_holders: dict[int, Any] = {}
        """The functions and weak references that are static so far, by the ids of the containers that they hold."""
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.specs: list[NodeSpec | None] = []
        self.arrays: list[Sequence[Any]] = []
        self.frozen: list[int] = []
        self.functions: list[Any] = []
        """The functions among the objects."""
        self._variable_specs: dict[int, NodeSpec] = {}
        """The spec of Variables by the id of their metadata, which many share."""
        self._statics: dict[int, tuple[Any, Static]] = {}
        self._is_out_of_order = False
        """Whether a frozen node was finished before one of its children."""
        self._path: Path = ()
        """The path of the value of the current visit."""
        self._stack: list[OpenNode] = []

    def visit(self, value: Any, path: Path = ()) -> tuple[Edge, list[Any]]:
        """Flatten everything that `value` reaches.

        Args:
          value: An object or leaf.
          path: Its path, for messages.

        Returns:
          Its edge, and a list with its array if it is one.

        Raises:
          StructureError: If something in it cannot be part of a module; the message names the path.
        """
        top = OpenNode(-1, STATIC, object, None, (), (value,))
        stack = self._stack = [top]
        self._path = path
        try:
            while True:
                node = stack[-1]
                deeper = self._walk_children(node)
                if deeper is not None:
                    stack.append(deeper)
                elif node is top:
                    if self._is_out_of_order:
                        self.frozen[:] = in_build_order(self.specs, self.frozen)
                        self._is_out_of_order = False
                    return top.edges[0], top.arrays
                else:
                    if node.kind.frozen:
                        self._check_can_be_built(node)
                    self._finish_node(node)
                    stack.pop()
        except errors.StructureError as error:
            where = self._where((*path, *_keys(stack)))
            raise errors.StructureError(f"{where}: {error.cause}", error.remedy) from error.__cause__

    def finished_specs(self) -> tuple[NodeSpec, ...]:
        """Return the specs, after every object has been visited."""
        return tuple(self.specs)  # pyright: ignore[reportReturnType]  # None marks a node that is not visited yet

    def static_parts(self) -> Iterator[Any]:
        """Yield the static parts of registered pytrees among the objects, and of the values of Variables."""
        for x, spec in zip(self.objects, self.specs, strict=True):
            if spec is None:
                continue
            if spec.kind is VARIABLE and not is_jax_array(x._storage.value):
                yield from static_in_value(x._storage.value)
            if spec.kind is PYTREE:
                treedef = spec.extra.treedef if isinstance(spec.extra, Incomparable) else spec.extra
                if isinstance(treedef, jax.tree_util.PyTreeDef):
                    yield from static_parts(treedef)

    def _where(self, path: Path) -> str:
        """Format a path that starts at the value of the current visit."""
        return format_path(path, self.root)

    def _walk_children(self, node: OpenNode) -> OpenNode | None:
        """Append edges of children. Return None at the end, or a child node that must be visited first."""
        edges, children, statics, frame = node.edges, node.children, self._statics, self._frame
        for position in range(len(edges), len(children)):
            child = children[position]
            cls = type(child)
            kind = kind_by_type(cls) or (STATIC if id(child) in statics else classify(child))
            if kind is SIMPLE:
                edges.append((cls, child))
            elif kind is VARIABLE and child._owner is frame and child._metadata.key is not None:
                edges.append(self._enter_variable(cls, child))
            elif kind is ARRAY_NODE:
                edges.append(ARRAY)
                node.arrays.append(child)
            elif kind is FLOAT:
                # 0.0 == -0.0, but they differ; nan != nan, but they do not
                edges.append((cls, child) if child and child == child else Static(child))
            elif kind is STATIC and not (cls in _HOLDERS and self._is_sharing(child)):
                edges.append(self._static(child))
            else:
                kind = _HOLDERS[cls] if kind is STATIC else kind
                static = self._as_static(kind, child) if kind.frozen or kind is CELL else None
                if static is not None:
                    statics[id(child)] = child, static
                    edges.append(static)
                    continue
                edge, deeper = self._enter(kind, cls, child)
                edges.append(edge)
                if deeper is not None:
                    return deeper
        return None

    def _enter(self, kind: NodeKind, cls: type, child: Any) -> tuple[int | Static, OpenNode | None]:
        """Return the edge of a node, and the open node if it has not been visited yet."""
        number = self.numbers.get(id(child))
        if number is not None and self.specs[number] is not None:
            return number, None
        if kind is VARIABLE and child._metadata.key is not None:
            number = self._add(child) if number is None else number
            self.specs[number] = self._spec_of_variable(cls, child._metadata)
            self._finish_variable(number)
            return number, None
        if kind is FUNCTION:
            self.functions.append(child)
        try:
            extra, keys, children = kind.flatten(child)
        except errors.StructureError:
            return self._held_by_function(child), None
        if number is None:
            number = self._add(child)
        self.specs[number] = _OPENED_FROZEN if kind.frozen else _OPENED
        return number, OpenNode(number, kind, cls, extra, keys, children)

    def _enter_variable(self, cls: type, child: Any) -> int:
        """Return the number of a Variable with fixed metadata that needs no resolving: the most common node."""
        number = self.numbers.get(id(child))
        if number is None:
            number = self.numbers[id(child)] = len(self.objects)
            self.objects.append(child)
            self.specs.append(self._spec_of_variable(cls, child._metadata))
            self.arrays.append(())
        return number

    def _spec_of_variable(self, cls: type, metadata: Any) -> NodeSpec:
        """Return the spec of a Variable with fixed metadata."""
        spec = self._variable_specs.get(id(metadata))
        if spec is None or spec.type is not cls:
            spec = self._variable_specs[id(metadata)] = NodeSpec(VARIABLE, cls, metadata, (), ())
        return spec

    def _static(self, value: Any) -> Static:
        """Return the edge of a static value that is not of a simple type; cached, since keys are slow to compute."""
        found = self._statics.get(id(value))
        if found is None:
            try:
                if isinstance(value, frozenset):
                    refuse_objects(value)
                static = Static(value)
            except errors.StructureError:
                static = self._held_by_function(value)
            found = self._statics[id(value)] = (value, static)
            if self.warns and not is_called(node.type for node in reversed(self._stack)):
                warn_if_hidden(value, lambda: self._where((*self._path, *_keys(self._stack))))
        return found[1]

    def _is_sharing(self, holder: Any) -> bool:
        """Return whether a function or weak reference shares a container with the graph; it is a node then."""
        if self._sharing is None or id(holder) in self._statics:
            return False
        if id(holder) not in self._sharing:
            container_ids = list(map(id, held_containers(holder)))
            if self.numbers.keys().isdisjoint(container_ids):
                self._static_holders |= dict.fromkeys(container_ids, holder)
                return False
            self._sharing[id(holder)] = holder
        return True

    def _held_by_function(self, value: Any) -> Static:
        """Return the edge of a value that can be neither a node nor copied, if a function holds it.

        Call it in an `except` clause; it raises the error again if no function holds the value.
        """
        if not any(node.kind is CELL or node.kind is FUNCTION for node in self._stack):
            raise
        self._statics[id(value)] = (value, Static(value, static_key(value, inside=True)))
        return self._statics[id(value)][1]

    def _as_static(self, kind: NodeKind, child: Any) -> Static | None:
        """Return the static edge of a frozen node that holds only immutable values, else None."""
        if kind is PYTREE or kind is FUNCTION or kind is BUILTIN_METHOD or kind is CELL:
            return None
        if isinstance(child, tuple) and any(
            isinstance(x, jax.Array) or hasattr(type(x), "__graph_node__") for x in tuple.__iter__(child)
        ):
            return None  # the common case, faster than the exception below
        try:
            return Static(child, immutable_key(child))
        except NotImmutableError:
            return None

    def _add(self, child: Any) -> int:
        """Assign the next number to a new object."""
        if id(child) in self._static_holders:
            raise SharedContainer(self._static_holders[id(child)])
        number = len(self.objects)
        self.objects.append(child)
        self.numbers[id(child)] = number
        self.specs.append(None)
        self.arrays.append(())
        return number

    def _check_can_be_built(self, node: OpenNode) -> None:
        """Raise StructureError for a cycle of frozen nodes only: each would have to be built before the other."""
        later = {e for e in node.edges if type(e) is int and self.specs[e] is _OPENED_FROZEN}
        self._is_out_of_order = self._is_out_of_order or bool(later)
        for above in reversed(self._stack):
            if not later or not above.kind.frozen:
                return  # what is not frozen is created empty, so it can be a child before it is filled
            if above.number in later:
                raise cycle_error(node.type)

    def _finish_variable(self, number: int) -> None:
        """Called after a Variable without children has been visited."""

    def _finish_node(self, node: OpenNode) -> None:
        """Called after all children of a node have their edges."""
        self.specs[node.number] = NodeSpec(
            node.kind, node.type, node.extra, tuple(node.keys), tuple(node.edges)
        )
        self.arrays[node.number] = node.arrays
        if node.kind.frozen:
            self.frozen.append(node.number)


class ArgumentWalk(Walk):
    """The walk over the arguments of a call: an object of an outer frame is replaced by its copy in the innermost one.

    So an object is one node, whether the code holds the original or the copy.

    Args:
      sharing: See `Walk`.
    """

    def __init__(self, sharing: Sharing | None = None) -> None:
        super().__init__(sharing=sharing)
        self._frame = frames.current_frame()
        self._is_plain = self._frame is frames.PLAIN
        self.is_captured = False  # whether what is walked is captured, not passed

    def _enter(self, kind: NodeKind, cls: type, child: Any) -> tuple[int | Static, OpenNode | None]:
        is_object = kind is VARIABLE or kind is MODULE
        if (child._owner is not self._frame) if is_object else not self._is_plain:
            known = frames.resolve_argument(child, self.is_captured)
            if known is not child:
                child, cls = known, type(known)
                kind = kind_by_type(cls) or classify(child)
        return super()._enter(kind, cls, child)


def _keys(stack: list[OpenNode]) -> Path:
    """Return the keys on the path from the start of a walk to the current child or node."""
    keys = [node.keys[len(node.edges) - 1] for node in stack[1:-1]]
    last = stack[-1]
    return (*keys, last.keys[len(last.edges)]) if len(last.edges) < len(last.keys) else tuple(keys)


_OPENED = NodeSpec(STATIC, object, None, (), ())
"""The temporary spec of a node while its children are visited."""
_OPENED_FROZEN = NodeSpec(STATIC, object, None, (), ())
"""The same for a frozen node."""
