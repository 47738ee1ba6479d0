"""Flatten after a call: find the changes of the objects that were numbered before it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

from liftnn import errors
from liftnn._src.graph.attributes import remove_cached
from liftnn._src.graph.build_order import in_build_order
from liftnn._src.graph.description import KEEP, Edge, NodeSpec, find_holders, keep_leaves
from liftnn._src.graph.kinds import (
    CELL,
    FROZEN_DATACLASS,
    FUNCTION,
    MODULE,
    PYTREE,
    VARIABLE,
    Incomparable,
    NodeKind,
)
from liftnn._src.graph.slots import ARRAY
from liftnn._src.graph.walk import OpenNode, Walk
from liftnn._src.static_values.static import Snapshot, Static
from liftnn._src.static_values.value_types import Identity
from liftnn._src.trees import Key, Path, an, at_start, format_path, is_tracer
from liftnn._src.variables import frames
from liftnn._src.variables.holding import find_cells, held_containers, leads_to


class DiffWalk(Walk):
    """A walk after a call, which describes the changes of objects that were numbered before it.

    Known objects keep their numbers. An unchanged known node contributes nothing; in the spec of a changed one, `KEEP`
    replaces the unchanged children.

    Args:
      before: The walk, or merge, before the call.
      owner: The frame in which the call ran: no object of another frame may be attached.
      returned: For each known node, whether its arrays must be returned even if unchanged (they were donated).
      paths: Returns the path of a known node, for messages.
      called: The functions that ran. The default is none: then all cells are new.
    """

    warns = False  # the arguments were flattened before

    def __init__(
        self,
        before: Any,
        owner: Any,
        returned: Sequence[bool] | None,
        paths: Any,
        called: Sequence[Any] = (),
    ):
        super().__init__()
        self._called = called
        self._outer_cells: set[int] | None = None
        """The ids of the cells that the called functions had before the call; computed when first used."""
        self.before = before
        self.owner = owner
        self.returned = returned
        self.paths = paths
        self.known = len(before.objects)
        self.objects = list(before.objects)
        self.numbers = {id(x): i for i, x in enumerate(self.objects)}
        self.specs = [None] * self.known
        self.arrays = [()] * self.known
        self.changed: set[int] = set()
        self.altered: set[int] = set()
        """The changed nodes, without those that are only returned because they were donated."""
        self._start: int | None = None
        """The known object that is being visited."""
        self._known_statics: dict[int, Static] | None = None
        """The edges of known static values that can change and are not copied, by id; computed when first used."""
        self._pass_unchanged()

    def visit_known(self) -> None:
        """Visit the known objects that have not been reached yet."""
        for number in range(self.known):
            if self.specs[number] is None:
                self._start = number
                self.visit(self.objects[number])
        self._replace_frozen()

    def _static(self, value: Any) -> Static:
        """Return the edge of a static value; if it was known and not copied, the edge from before the call.

        What its closure holds now does not count: it belongs to the caller, who holds the same function.
        """
        if self._known_statics is None:
            statics = [e for spec in self.before.specs for e in spec.edges if type(e) is Static]
            self._known_statics = {id(e.value): e for e in statics if _is_held(e)}
        return self._known_statics.get(id(value)) or super()._static(value)

    def _as_static(self, kind: NodeKind, child: Any) -> Static | None:
        """Return the static edge of a function that holds no object of this call: then it is not a node."""
        if kind is not FUNCTION and kind is not CELL:
            return super()._as_static(kind, child)
        if self._is_inside(child):
            return None
        if kind is CELL:  # new, unless a called function has it from its definition
            if self._outer_cells is None:
                self._outer_cells = find_cells(self._called)
            return Static(child, Identity(child)) if id(child) in self._outer_cells else None
        return None if leads_to(child, self._is_inside) else self._static(child)

    def _is_sharing(self, holder: Any) -> bool:
        """Return whether a function or weak reference is known as a node, or holds a container of this call."""
        return id(holder) in self.numbers or not self.numbers.keys().isdisjoint(
            map(id, held_containers(holder))
        )

    def _is_inside(self, x: Any) -> bool:
        """Return whether `x` is an object of this call, or an array that may be one of its tracers."""
        if id(x) in self.numbers or is_tracer(x):
            return True
        if hasattr(type(x), "__graph_node__"):
            return x._owner is self.owner
        return frames.lookup(x) is not x

    def _where(self, path: Path) -> str:
        if self._start is None:
            return super()._where(path)
        root, start = self.paths(self._start)
        return format_path((*start, *path), root)

    def _enter(self, kind: NodeKind, cls: type, child: Any) -> tuple[int | Static, OpenNode | None]:
        number = self.numbers.get(id(child))
        if number is None:
            copy = frames.lookup(child)  # a captured object may be attached in place of its copy
            if id(copy) in self.numbers:
                child = copy
            else:
                self._check_owner(kind, child)
        return super()._enter(kind, cls, child)

    def _pass_unchanged(self) -> None:
        """Skip the known objects that are unchanged since the merge, which is cheaper than to flatten them again."""
        specs, objects, known = self.specs, self.objects, self.before.specs
        for number in self.before.frozen:  # before their holders, which get a new object if one has changed
            if known[number].kind is FROZEN_DATACLASS:
                # the caller's object cannot be filled: its properties are computed again
                remove_cached(objects[number], known[number].keys)
            elif known[number].kind is PYTREE:
                self._pass_if_same(number, known[number], self.before.pytree_children[number])
        for number, spec in enumerate(known):
            if spec.kind is not VARIABLE:
                children = self.before.children.get(number)
                if children is not None:
                    self._pass_if_same(number, spec, children)
            elif type(objects[number]) is spec.type and objects[number]._metadata is spec.extra:
                specs[number] = spec

    def _pass_if_same(self, number: int, spec: NodeSpec, children: Sequence[Any]) -> None:
        """Skip a known object if it still has its children, those of the merge, and no frozen one may be new."""
        x = self.objects[number]
        if type(x) is not spec.type or (self.returned is not None and self.returned[number]):
            return
        extra, keys, now = spec.kind.flatten(x)
        if keys != spec.keys or extra != spec.extra or not all(map(is_, now, children)):
            return
        for edge, y in zip(spec.edges, now, strict=True):
            if type(edge) is int:
                if self.specs[edge] is None and self.before.specs[edge].kind.frozen:
                    return
            elif type(edge) is Static and edge != self._static(y):
                return
        self.specs[number] = spec

    def _replace_frozen(self) -> None:
        """Mark every node that holds a rebuilt frozen node as changed."""
        known = [spec for spec in self.specs[: self.known] if spec is not None]  # all are visited by now
        for i in find_holders(known, self.changed):
            self.specs[i] = keep_leaves(known[i])
            self.changed.add(i)
        rebuilt = [n for n in self.before.frozen if n in self.changed]
        if rebuilt:  # they may hold new ones, or be held by them
            self.frozen = in_build_order(self.specs, [*rebuilt, *self.frozen])

    def _check_owner(self, kind: NodeKind, child: Any) -> None:
        """Request a retry for an object of an outer frame that is not an input; raise for a leaked one."""
        if kind is VARIABLE or kind is MODULE:
            owner = child._owner
            if isinstance(owner, frames.Frame) and owner is not self.owner:
                if frames.frames_up_to(child) is not None:
                    raise frames.RetryWithCaptures([child])
                raise errors.StructureError(
                    f"{at_start(an(type(child)))} that was created in a transform that has returned (leaked) was "
                    "stored here or returned.",
                    "Return it from that transform, or store it in a module that was an argument of that transform.",
                )

    def _finish_variable(self, number: int) -> None:
        if number < self.known and self.specs[number] != self.before.specs[number]:
            self.changed.add(number)
            self.altered.add(number)

    def _finish_node(self, node: OpenNode) -> None:
        number = node.number
        if number >= self.known:
            super()._finish_node(node)
            return
        old: NodeSpec = self.before.specs[number]
        old_arrays = self.before.arrays[number]
        # a static part that the class creates for each flattening never compares equal, so it does not count as changed
        extra = old.extra if isinstance(node.extra, Incomparable) else node.extra
        spec = NodeSpec(node.kind, node.type, extra, tuple(node.keys), tuple(node.edges))
        self.specs[number] = spec
        must_return = self.returned is not None and self.returned[number] and bool(old_arrays)
        same_arrays = len(old_arrays) == len(node.arrays) and all(map(is_, old_arrays, node.arrays))
        if spec == old and same_arrays and not must_return:
            return
        if node.kind.frozen and node.kind is not PYTREE:  # the caller gets a new object for a changed pytree
            if spec != old:
                raise errors.StructureError(
                    f"{at_start(an(node.type))} was changed in place, but it is immutable.",
                    "Assign a new object to the attribute instead.",
                )
            if not must_return:
                return
        self.changed.add(number)
        if spec != old or not same_arrays:
            self.altered.add(number)
        kept = {} if must_return else _places(old, old_arrays)
        edges, arrays, at = [], [], iter(node.arrays)
        for key, edge in zip(spec.keys, spec.edges, strict=True):
            array = next(at) if edge is ARRAY else None
            if type(edge) is not int and key in kept and kept[key][0] == edge and kept[key][1] is array:
                edges.append(KEEP)
                continue
            edges.append(edge)
            if edge is ARRAY:
                arrays.append(array)
        self.specs[number] = spec._replace(edges=tuple(edges))
        self.arrays[number] = arrays


def _is_held(static: Static) -> bool:
    """Return whether a static value is held itself, although it can change."""
    key = static.key
    changes = type(key) is Identity or static.content is not None
    return changes or (type(key) is Snapshot and not key.is_copy)


def _places(spec: NodeSpec, arrays: list[Any]) -> dict[Key, tuple[Edge, Any]]:
    """Return the edge, and the array if it is an array leaf, at each key of a node."""
    at = iter(arrays)
    return {k: (e, next(at) if e is ARRAY else None) for k, e in zip(spec.keys, spec.edges, strict=True)}
