"""The write-back of a fast path: store the result of a program in the modules, without the general commit.

This is possible if the structure stays the same: values are written, array leaves are set, and Variables are replaced
by new ones of the same class and metadata (`Rebind`). All other results go through `commit_result`.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from liftnn._src.compilation.compact import OutputSpec, split_output
from liftnn._src.graph.attributes import put_attribute
from liftnn._src.graph.containers import base_of
from liftnn._src.graph.description import KEEP, GraphSpec
from liftnn._src.graph.kinds import DICT, LIST, MODULE, VARIABLE
from liftnn._src.graph.merge import GraphDelta
from liftnn._src.graph.slots import ARRAY, Slot
from liftnn._src.graph.undo import to_the_end
from liftnn._src.lifting.call import Call, commit_result
from liftnn._src.lifting.contract import Plan
from liftnn._src.variables import frames
from liftnn._src.variables.storage import Storage
from liftnn._src.variables.variable import make_variable
from liftnn._src.variables.watch import changes, set_watches
from liftnn._src.variables.write_errors import write_error


class WriteBack:
    """The write-back of the results of one trace; created once for each `OutputSpec` of a program.

    Args:
      output_spec: The static part of the results of the trace.
      plan: The arguments.
      parts: The leaves that the program returned in addition to the output. They must be concrete: under a raw JAX
        transform the first array would have another class.
      is_bare: Whether the program returned just an array.
    """

    __slots__ = ("array_type", "bare", "layout", "rebind", "simple", "treedef", "written")

    def __init__(self, output_spec: OutputSpec, plan: Plan, parts: Sequence[Any], is_bare: bool):
        change = output_spec.change
        self.array_type = type(parts[0]) if parts and isinstance(parts[0], jax.Array) else None
        """The class of the first part; None if it is a tree or there are no parts."""
        self.written = [plan.index[Slot(number)] for number in change.written]
        """The positions of the written Variables."""
        self.layout = output_spec.layout
        self.treedef = change.treedef
        self.rebind = find_rebind(change, plan.graph) if change.changed and self.layout is None else None
        unchanged = not change.changed and not change.new
        self.bare = is_bare
        """Whether the program returns just an array."""
        self.simple = output_spec.plain and (unchanged or self.rebind is not None)
        """Whether the general commit is not needed."""

    def unpack(self, returned: Any) -> tuple[Any, Sequence[Any]]:
        """Split the returned value of a program into the output and the other leaves.

        Args:
          returned: The returned value; the write-back must be simple.
        """
        if self.layout is None:
            return split_output(returned)
        leaves = [returned[0][g][i] for g, i in self.layout.at]
        n = self.treedef.num_leaves
        return self.treedef.unflatten(leaves[:n]), leaves[n:]


class Writer:
    """The writer of a fast path: stores the results of a program in the modules of one combination of arguments.

    Args:
      call: The flattened call; only weak references to `roots` are kept.
      roots: The modules and Variables that must not be kept alive, by number.
    """

    def __init__(self, call: Call, roots: Mapping[int, Any]):
        objects = [None if n in roots else x for n, x in enumerate(call.objects)]
        self.call = call._replace(objects=objects, leaves=[])
        self.program = call.bound
        self.roots = {number: weakref.ref(x) for number, x in roots.items()}
        self.storages: list[Storage] = [call.objects[n]._storage for n in call.plan.variables]
        self.write_backs: dict[int, WriteBack] = {}
        """The write-back of each `OutputSpec` of the program, by number."""

    def commit(self, returned: Any) -> Any:
        """Write back the result of the program.

        Args:
          returned: The returned value of the program.

        Returns:
          The output.
        """
        number = self.program.output_specs.number_of(returned)
        write_back = self.write_backs.get(number)
        if write_back is None:
            self.check_plain()
            output_spec = self.program.output_specs[number]
            grouped = self.program.grouped
            parts = [x for group in returned[0] for x in group] if grouped else split_output(returned)[1]
            write_back = self.write_backs[number] = WriteBack(
                output_spec, self.call.plan, parts, type(returned) is not tuple
            )
        if not write_back.simple:
            self.check_plain()
            return commit_result(self.call, self.program.result(returned), self.objects())
        out, parts = write_back.unpack(returned)
        if parts and (type(parts[0]) is not write_back.array_type or write_back.rebind is not None):
            self.check_plain()
        written = [self.storages[i] for i in write_back.written]
        if write_back.rebind is None:
            write(written, parts)
            return out
        rebind, first_written = write_back.rebind, len(parts) - len(write_back.written)
        replacements = self._make_variables(rebind, parts[len(rebind.stored) : first_written])

        def put() -> None:
            write(written, parts[first_written:])
            self._rebind(rebind, parts[: len(rebind.stored)], replacements)

        to_the_end(put)
        return out

    def check_plain(self) -> None:
        """Raise under a raw JAX transform, where nothing may be written."""
        if not frames.is_plain():
            written = next(x for x in self.objects() if hasattr(type(x), "__graph_node__"))
            raise write_error(written, "the state", self.call.plan.path_of(0))

    def objects(self) -> list[Any]:
        """Return the live objects by number."""
        objects = list(self.call.objects)
        for number, reference in self.roots.items():
            objects[number] = reference()
        return objects

    def _make_variables(self, rebind: Rebind, values: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Make the new Variables; return pairs of the old and the new one."""
        objects, replacements = self.objects(), []
        for (cls, metadata, number), value in zip(rebind.new_variables, values, strict=True):
            variable = make_variable(cls, value, metadata, frames.PLAIN)
            set_watches(variable, objects[number]._watches)
            replacements.append((objects[number], variable))
        return replacements

    def _rebind(self, rebind: Rebind, arrays: Sequence[Any], replacements: Sequence[tuple[Any, Any]]) -> None:
        """Store array leaves, and replace Variables in their modules and in this fast path."""
        objects, specs = self.objects(), self.call.plan.graph.specs
        for (number, key), x in zip(rebind.stored, arrays, strict=True):
            holder = objects[number]
            if specs[number].kind is MODULE:
                put_attribute(holder, key, x)
            else:
                base_of(type(holder)).__setitem__(holder, key, x)  # past the code of a subclass
        for number, name, which in rebind.placed:
            put_attribute(objects[number], name, replacements[which][1])
        changes.count += bool(replacements)
        places = {which: (objects[number], name) for number, name, which in rebind.placed}
        single = len(rebind.placed) == len(replacements)
        for which, (old, new) in enumerate(replacements):
            for watch in old._watches:
                path = watch.watcher()  # watchers that are not fast paths cannot follow
                can_follow = hasattr(path, "follow")
                # another object may still hold the old one
                if can_follow and (path.writer is self or (single and path.has_only_at(old, *places[which]))):
                    path.follow(old, new)
                else:
                    watch.valid = False


class Rebind:
    """The changes of a program that, apart from values, only sets array leaves and replaces Variables by similar ones.

    Args:
      stored: The node and key of each array leaf.
      placed: For each reference to a replaced Variable: the node, the attribute, and the index of the new Variable.
      new_variables: The class and metadata of each new Variable, and the number of the Variable that it replaces.
    """

    __slots__ = ("new_variables", "placed", "stored")

    def __init__(
        self,
        stored: list[tuple[int, Any]],
        placed: list[tuple[int, Any, int]],
        new_variables: list[tuple[type, Any, int]],
    ):
        self.stored = stored
        self.placed = placed
        self.new_variables = new_variables


def find_rebind(change: GraphDelta, graph: GraphSpec) -> Rebind | None:
    """Describe a change as a `Rebind`, if it only sets array leaves and replaces Variables by similar ones.

    Args:
      change: The change.
      graph: The structure before.

    Returns:
      The `Rebind`; None if the structure changes in another way.
    """
    old_of: dict[int, int] = {}
    stored: list[tuple[int, Any]] = []
    placed: list[tuple[int, Any, int]] = []
    for number, spec in change.changed:
        before = graph.specs[number]
        if spec.kind not in (MODULE, LIST, DICT) or spec[:4] != before[:4]:
            return None
        for key, edge, old in zip(spec.keys, spec.edges, before.edges, strict=True):
            if edge is ARRAY and old is ARRAY:
                stored.append((number, key))
            elif edge is not KEEP and edge != old:
                if type(edge) is not int or edge < change.known or type(old) is not int:
                    return None
                placed.append((number, key, edge - change.known))
                if old_of.setdefault(edge, old) != old or spec.kind is not MODULE:
                    return None
    if not _alike(change, graph, old_of, len(placed)):
        return None
    new_variables = [
        (spec.type, spec.extra, old_of[number]) for number, spec in enumerate(change.new, change.known)
    ]
    return Rebind(stored, placed, new_variables)


def _alike(change: GraphDelta, graph: GraphSpec, old_of: dict[int, int], places: int) -> bool:
    """Return whether all new nodes are Variables with the specs of the replaced ones, in every position of those."""
    for number, spec in enumerate(change.new, change.known):
        if (
            spec.kind is not VARIABLE
            or spec.keys
            or number not in old_of
            or spec != graph.specs[old_of[number]]
        ):
            return False
    replaced = set(old_of.values())
    return len(replaced) == len(old_of) and sum(e in replaced for e in graph.references) == places


def write(storages: Sequence[Storage], parts: Sequence[Any]) -> None:
    """Write all values of Variables, even if a signal handler raises in between.

    Args:
      storages: The storages of the Variables.
      parts: The new values in the same order; further parts are ignored.
    """
    try:
        for storage, x in zip(storages, parts):  # noqa: B905  # parts may end with leaves that are not updates
            storage.value = x
    except BaseException:
        write(storages, parts)  # repeat the whole write; writing a value twice is harmless
        raise
