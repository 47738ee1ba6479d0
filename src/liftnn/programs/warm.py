"""Warm calls: what a `jit` remembers of its arguments, so that a repeated call walks no graph.

A `WarmPlan` belongs to one combination of a jitted function and the modules it was called with. It holds the flat list
of their Variables, and knows when it is out of date:

- A Module or Variable whose structure changes ends the plan's watch (see `graph/watch.py`).
- Lists, dicts, dataclasses and registered pytrees cannot notify, so the plan keeps a shallow copy of each and compares,
  element by element, by identity. A set, or another static value that can change in place, is compared with a copy.
- Bare arrays are values; they are read from where they stand at each call.

What a call costs that has a plan says `warm_call.py`.

Who keeps whom alive: the first module among the arguments owns the plan, the function refers to it weakly, and the plan
refers to the arguments weakly. So a dead model frees its plans, and a dead function is forgotten when the next plan is
made. The plan holds what is inside the arguments strongly, which closes no cycle that was not there.
"""

from __future__ import annotations

import collections
import functools
import operator
import weakref
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import jax

from liftnn.graph.description import ARRAY, NodeSpec
from liftnn.graph.kinds import DATACLASS, DICT, LIST, MODULE, PYTREE, VARIABLE
from liftnn.lifting.lift import Call, commit_result
from liftnn.programs.compact import Outcome
from liftnn.programs.rebind import Rebind, find_rebind
from liftnn.trees import is_array, make_picker
from liftnn.variables import frames
from liftnn.variables.static import Snapshot, Static
from liftnn.variables.variable import make_variable
from liftnn.variables.watch import changes, set_watches, start_watch


class _Return:
    """How the result of one trace is put back; made once for each `Outcome` that a plan meets.

    Args:
      plan: The plan.
      outcome: What the trace returns.
      parts: What it returns beside the output, in plain Python: under a raw JAX transform the first array would be of
        another type.
    """

    __slots__ = ("first_new", "kind", "rebind", "simple", "slots", "written")

    def __init__(self, plan: WarmPlan, outcome: Outcome, parts: Sequence[Any]):
        change = outcome.change
        self.kind = type(parts[0]) if parts and isinstance(parts[0], jax.Array) else None
        self.first_new = outcome.first_new
        self.slots = outcome.written
        self.written = [plan.cells[slot] for slot in outcome.written]
        self.rebind = find_rebind(change, plan.graph) if change.changed else None
        unchanged = not change.changed and not change.new
        self.simple = outcome.plain and not plan.root_slots and (unchanged or self.rebind is not None)


class UnfitError(Exception):
    """Raised where arguments hold something that a plan cannot see change; such calls walk the graph each time."""


class WarmPlan:
    """The flat view of the modules in one combination of arguments.

    Args:
      call: The arguments, walked.
      size: How many leaves they have; what the function captures comes after them.
      roots: Number of each object among the leaves of the arguments, by position of the leaf.
      since: `changes.count` from before the walk.

    Raises:
      UnfitError: If the arguments hold something whose changes cannot be seen.
    """

    def __init__(self, call: Call, size: int, roots: dict[int, int], since: int):
        self.call = call._replace(objects=list(call.objects), values=[], arrays=[])
        self.graph = call.plan.graph
        self.program = call.bound
        self.roots = roots
        self._lists: list[tuple[Any, list[Any]]] = []
        self._dicts: list[tuple[Any, list[Any], list[Any]]] = []
        self._mixed: list[tuple[Any, NodeSpec, list[Any]]] = []
        self._sets: list[tuple[Any, Snapshot]] = []
        self._arrays: list[Callable[[], Any]] = []
        self._pinned: list[tuple[Callable[[], Any], Any]] = []
        self._returns: dict[int, _Return] = {}
        self.cache: Any = None
        self.direct: Any = None
        """Its `Direct`, by which it is found by the arguments as they come; None if it cannot be."""
        self.reference: Any = None
        """A weak reference to the plan itself."""
        self.references: list[Any] = []
        for number, (x, spec) in enumerate(zip(call.objects, self.graph.specs, strict=True)):
            self._remember(x, spec, number in call.plan.captured)
        self._pick = make_picker([i for i, e in enumerate(self.graph.edges[:size]) if e is ARRAY])
        self.cells: list[Any] = [call.objects[n]._cell for n in call.plan.variables]
        self.root_slots = {call.plan.slots[n]: leaf for leaf, n in roots.items() if n in call.plan.slots}
        for slot in self.root_slots:
            self.cells[slot] = None
        for number in roots.values():
            self.call.objects[number] = None
        self._others = bool(self._dicts or self._mixed or self._sets or self._pinned)
        self._guards = call.guards or None
        self.fixed = not (self._lists or self._guards or self._others)
        """Whether nothing can have changed as long as the watch is valid."""
        self.donates = call.bound.donates
        self.array_type = next((type(x) for x in call.values if isinstance(x, jax.Array)), None)
        """The class that an array of JAX's has, by which a value that is one is told from a tree of them."""
        self.jitted = None if self._arrays or self.root_slots or call.bound.divides else call.bound.jitted
        """The compiled function, if it takes the values of the Variables and the arguments that are all arrays."""
        self.only: _Return | None = None
        """How the first of the outcomes is put back, if that is no more than writing the values of Variables."""
        self.watch = start_watch([x for x in call.objects if hasattr(type(x), "__graph_node__")], since)
        self.watch.plan = weakref.ref(self)

    def _remember(self, x: Any, spec: NodeSpec, captured: bool) -> None:
        """Notes how to see that a node has changed, and where its bare arrays stand."""
        if not spec.keys and spec.kind is VARIABLE:
            return
        _, keys, children = spec.kind.open(x)
        if len(keys) != len(spec.keys) or len(children) != len(spec.keys):
            raise UnfitError  # another thread has changed it since the walk
        has_array = any(e is ARRAY for e in spec.edges)
        if type(x) in _SEQUENCES and not has_array:
            self._lists.append((x, list(children)))
        elif type(x) in _MAPPINGS and not has_array:
            self._dicts.append((x, list(keys), list(children)))
        elif spec.kind in (LIST, DICT, DATACLASS, PYTREE):
            kept = [None if e is ARRAY else c for e, c in zip(spec.edges, children, strict=True)]
            self._mixed.append((x, spec, kept))
        for key, edge, child in zip(spec.keys, spec.edges, children, strict=True):
            if edge is ARRAY:
                read = _reader(x, spec, key, child)
                self._arrays.append(read)
                if captured:  # the code reads it where it stands, so it is a constant of the program
                    self._pinned.append((read, child))
            elif type(edge) is Static and isinstance(edge.key, Snapshot):
                self._sets.append((child, edge.key))

    def run(self, leaves: Sequence[Any]) -> Any:
        """Calls the program and puts what it returned into the modules.

        Args:
          leaves: The leaves of the arguments.

        Returns:
          The output.
        """
        arrays = self._pick(leaves)
        if self._arrays:
            arrays += tuple([read() for read in self._arrays])
        return self.close(leaves, self.program.run(self.values(leaves), arrays))

    def is_current(self) -> bool:
        """Whether the modules still have the structure that the plan was made for."""
        if not self.watch.valid:
            return False
        if self.fixed:
            return True
        try:
            for x, kept in self._lists:
                if len(x) != len(kept):
                    return False
                if len(kept) > _MANY:
                    if not all(map(is_, x, kept)):
                        return False
                    continue
                i = 0
                for child in x:
                    if child is not kept[i]:
                        return False
                    i += 1
            if self._guards is not None and not self._guards.hold():
                return False
            return not self._others or self._are_others_current()
        except (RuntimeError, IndexError):  # another thread is changing one of them
            return False

    def _are_others_current(self) -> bool:
        """The same for what is rarer than lists."""
        for x, kept_keys, kept in self._dicts:
            if len(x) != len(kept) or not all(map(is_, x, kept_keys)) or not all(map(is_, x.values(), kept)):
                return False
        for x, spec, kept in self._mixed:
            extra, keys, children = spec.kind.open(x)
            if keys != spec.keys or extra != spec.extra or not all(map(_same, children, kept, spec.edges)):
                return False
        return all(Snapshot(x) == snapshot for x, snapshot in self._sets) and all(
            read() is x for read, x in self._pinned
        )

    def values(self, leaves: Sequence[Any]) -> list[Any]:
        """The values of all Variables now, with those that are arguments themselves."""
        cells = list(self.cells)
        for slot, leaf in self.root_slots.items():
            cells[slot] = leaves[leaf]._cell
        return [cell.value for cell in cells]

    def close(self, leaves: Sequence[Any], returned: Any) -> Any:
        """Puts what a program returned into the modules.

        Args:
          leaves: The leaves of the arguments.
          returned: What the program returned.

        Returns:
          The output.
        """
        if self.program.grouped:
            self.check_plain()
            return self._close_fully(leaves, returned)
        how = self._returns.get(len(returned))
        if how is None:
            self.check_plain()
            how = _Return(self, self.program.outcomes.of(returned), returned[1])
            self._returns[len(returned)] = how
            if len(returned) == 2 and how.simple and how.rebind is None:
                self.only = how
        if not how.simple:
            self.check_plain()
            return self._close_fully(leaves, returned)
        out, parts = returned[0], returned[1]
        if parts is None:
            return out
        if type(parts[0]) is not how.kind or how.rebind is not None:
            self.check_plain()
        for cell, x in zip(how.written, parts):  # noqa: B905  # the longer one ends with parts that are no updates
            cell.value = x
        if how.rebind is not None:
            self._rebind(how.rebind, leaves, parts[len(how.written) : how.first_new], parts[how.first_new :])
        return out

    def check_plain(self) -> None:
        """Refuses to write what was computed under a raw JAX transform."""
        if not frames.is_plain():
            written = next(x for x in self.call.objects if hasattr(type(x), "__graph_node__"))
            raise frames.write_error(written, "the state", self.call.plan.path_of(0))

    def _rebind(self, rebind: Rebind, leaves: Sequence[Any], arrays: list[Any], values: list[Any]) -> None:
        """Stores arrays, and puts new Variables in place of the old ones, here and in their modules."""
        objects = self._objects(leaves)
        for (number, key), x in zip(rebind.stored, arrays, strict=True):
            holder = objects[number]
            (holder.__dict__ if self.graph.specs[number].kind is MODULE else holder)[key] = x
        made = []
        for (cls, metadata, number), value in zip(rebind.made, values, strict=True):
            variable = make_variable(cls, value, metadata, frames.PLAIN)
            set_watches(variable, objects[number]._watches)
            made.append((objects[number], variable))
        for number, name, which in rebind.placed:
            object.__setattr__(objects[number], name, made[which][1])  # it may be a slot
        changes.count += bool(made)
        single = len(rebind.placed) == len(made)
        for old, new in made:
            for watch in old._watches:
                plan = watch.plan()
                if plan is not self and (plan is None or not single or not plan.is_single(old)):
                    watch.valid = False
                else:
                    plan.follow(old, new)

    def is_single(self, variable: Any) -> bool:
        """Whether a Variable stands in one place only."""
        number = self._number_of(variable)
        edges = (self.graph.edges, *(spec.edges for spec in self.graph.specs))
        return number is not None and sum(type(e) is int and e == number for es in edges for e in es) == 1

    def follow(self, old: Any, new: Any) -> None:
        """Puts a Variable in the place of one alike."""
        number = self._number_of(old)
        if number is None:  # another thread was quicker
            self.watch.valid = False
            return
        slot = self.call.plan.slots[number]
        self.call.objects[number] = new
        self.cells[slot] = new._cell
        for how in self._returns.values():
            if slot in how.slots:
                how.written[how.slots.index(slot)] = new._cell

    def _number_of(self, variable: Any) -> int | None:
        """The number of a Variable; None if it is not, or no longer, here."""
        slot = next((i for i, cell in enumerate(self.cells) if cell is variable._cell), None)
        return None if slot is None else self.call.plan.variables[slot]

    def _objects(self, leaves: Sequence[Any]) -> list[Any]:
        """The live objects by number."""
        objects = list(self.call.objects)
        for leaf, number in self.roots.items():
            objects[number] = leaves[leaf]
        return objects

    def _close_fully(self, leaves: Sequence[Any], returned: Any) -> Any:
        """The general commit, for results with objects in them and for changes of structure."""
        return commit_result(self.call, self.program.result(returned), self._objects(leaves))


_MANY = 64
"""How many elements a C loop takes to be quicker than one in Python, whose start costs a tenth of it."""
_SEQUENCES = {list, collections.deque}
_MAPPINGS = {dict, collections.OrderedDict}


def _reader(x: Any, spec: NodeSpec, key: Any, child: Any) -> Callable[[], Any]:
    """A function that reads a bare array from where it stands."""
    if spec.kind in (LIST, DICT):
        return functools.partial(operator.getitem, x, key)
    if spec.kind is MODULE and key in x.__dict__:
        return functools.partial(operator.getitem, x.__dict__, key)
    if spec.kind.frozen and spec.kind is not PYTREE:
        return lambda: child
    raise UnfitError


def _same(child: Any, kept: Any, edge: Any) -> bool:
    """Whether an element of a container is what it was; of an array, whether it is one still."""
    return is_array(child) if edge is ARRAY else child is kept
