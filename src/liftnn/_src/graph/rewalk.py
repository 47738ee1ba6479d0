"""The walk after a call: what has become of the objects that were numbered before it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

import jax

from liftnn import errors
from liftnn._src.graph.description import KEEP, Edge, NodeSpec, find_holders, keep_leaves
from liftnn._src.graph.kinds import CELL, FUNCTION, MODULE, PYTREE, VARIABLE, Incomparable, NodeKind
from liftnn._src.graph.slots import ARRAY as ARRAY_EDGE
from liftnn._src.graph.walk import OpenNode, Walk
from liftnn._src.static_values.static import Snapshot, Static
from liftnn._src.static_values.value_types import Identity
from liftnn._src.trees import Key, Path, an, at_start, format_path, has_changed, is_tracer
from liftnn._src.variables import frames
from liftnn._src.variables.holding import find_cells, leads_to
from liftnn._src.variables.variable import Variable

_PASSED = object()
"""In place of the static extra of a known node that is passed by: only some of its children are walked."""


class DiffWalk(Walk):
    """The walk after a call: what has become of objects that were numbered before it.

    Known objects keep their numbers. A known node that is as it was contributes nothing; of one that changed, the
    unchanged parts become `KEEP`.

    Args:
      before: The walk, or merge, before the call.
      owner: The frame in which the call ran: nothing else may be attached.
      returned: For each known node whether its arrays must be returned even if unchanged (they were donated).
      paths: Gives the path of a known node, for messages.
      called: The functions that ran. The default, none, means that no function made outside is known.
    """

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
        """The ids of the cells that the called functions had before the call; found when first needed."""
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
        self.altered: set[int] = set()
        """Those of the changed nodes that are not only returned because they were donated."""
        self._start: int | None = None
        """The known object that is being visited."""
        self._closures: dict[int, Static] | None = None
        """The functions that were there before and close over something mutable, by id; made when first needed."""

    def visit_known(self) -> None:
        """Walks the known objects that have not been reached yet."""
        for number in range(self.known):
            if self.specs[number] is None:
                self._start = number
                self.visit(self.objects[number])
        self._replace_frozen()

    def _static(self, value: Any) -> Static:
        """The edge of a static value; a function that was there before is the same, whatever it has written meanwhile.

        What it closes over belongs to the caller, who holds the same function.
        """
        static = super()._static(value)
        if not isinstance(static.key, Snapshot) or static.key.is_copy:
            return static
        if self._closures is None:
            statics = [e for spec in self.before.specs for e in spec.edges if type(e) is Static]
            self._closures = {
                id(e.value): e for e in statics if type(e.key) is Snapshot and not e.key.is_copy
            }
        return self._closures.get(id(value), static)

    def _as_static(self, kind: NodeKind, child: Any) -> Static | None:
        """The static edge of a function that holds nothing of this call: it is the caller's, or like one of theirs."""
        if kind is not FUNCTION and kind is not CELL:
            return super()._as_static(kind, child)
        if self._is_inside(child):
            return None
        if kind is CELL:  # new, unless the function has it from where it was defined
            if self._outer_cells is None:
                self._outer_cells = find_cells(self._called)
            return Static(child, Identity(child)) if id(child) in self._outer_cells else None
        return None if leads_to(child, self._is_inside) else self._static(child)

    def _is_inside(self, x: Any) -> bool:
        """Whether `x` is an object of this call, or an array that may be one of its tracers."""
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

    def _enter(self, kind: NodeKind, cls: type, child: Any) -> tuple[int, OpenNode | None]:
        number = self.numbers.get(id(child))
        if number is not None and number < self.known and self.specs[number] is None:
            rest = self._pass(number, cls, child)
            if rest is not None:
                return number, OpenNode(
                    number, kind, cls, _PASSED, *zip(*rest, strict=True)
                ) if rest else None
        if number is None:
            copy = frames.lookup(child)  # a captured object stands where its copy belongs
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
        extra, keys, children = spec.kind.flatten(child)
        if keys != spec.keys or extra != spec.extra or not all(map(is_, children, given)):
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
                    raise frames.RetryWithCaptures([child])
                raise errors.StructureError(
                    f"{at_start(an(type(child)))} that was made in a call which is over was put here or returned.",
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
            self.altered.add(number)

    def _finish_node(self, node: OpenNode) -> None:
        if node.extra is _PASSED:
            return
        number = node.number
        if number >= self.known:
            super()._finish_node(node)
            return
        old: NodeSpec = self.before.specs[number]
        old_arrays = self.before.arrays[number]
        # of a static part that is made anew each time, nobody can say that it has changed
        extra = old.extra if isinstance(node.extra, Incomparable) else node.extra
        spec = NodeSpec(node.kind, node.type, extra, tuple(node.keys), tuple(node.edges))
        self.specs[number] = spec
        must_return = self.returned is not None and self.returned[number] and bool(old_arrays)
        same_arrays = len(old_arrays) == len(node.arrays) and all(map(is_, old_arrays, node.arrays))
        if spec == old and same_arrays and not must_return:
            return
        if node.kind.frozen:
            if spec != old:
                raise errors.StructureError(
                    f"{at_start(an(node.type))} was changed in place.",
                    "Assign a new one to the attribute instead.",
                )
            if not must_return:
                return
        self.changed.add(number)
        if spec != old or not same_arrays:
            self.altered.add(number)
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
        if len(leaves) != len(given.leaves) or not all(map(is_, leaves, given.leaves)):
            return True
        return has_changed(given.treedef, treedef, lambda: jax.tree.structure(value))
    return True
