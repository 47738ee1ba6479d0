"""Checks of everything that a call depends on besides the structure of its arguments.

A change of a Module or of a Variable's metadata ends the watch of a fast path. Other dependencies have to be checked in
each call: containers and objects whose changes liftnn cannot observe, constants (array leaves of captured modules), the
arguments stored in a partial, and *varying* attributes. An attribute is varying if its value has been seen to change
between calls, such as `deterministic`. If the changes of an object can neither be observed nor checked, `Unseen` is
raised; then the call gets no fast path.
"""

from __future__ import annotations

import weakref
from collections.abc import Container, Sequence
from operator import is_
from typing import Any, NamedTuple

import jax

from liftnn import errors
from liftnn._src.captures.pinned import content_of
from liftnn._src.compilation.patterns import same_static
from liftnn._src.graph.attributes import attributes_of
from liftnn._src.graph.checks import ABSENT, Check, check_node, is_atom
from liftnn._src.graph.containers import base_of
from liftnn._src.graph.description import NodeSpec, reach
from liftnn._src.graph.kinds import CELL, DICT, LIST, MODULE, PYTREE, REFERENCE, VARIABLE, is_object
from liftnn._src.graph.slots import ARRAY, ROOT
from liftnn._src.graph.value_sharing import check_unshared, has_containers
from liftnn._src.graph.walk import static_in_value
from liftnn._src.lifting.call import Call
from liftnn._src.lifting.contract import STORED, Plan
from liftnn._src.static_values.static import Snapshot, Static
from liftnn._src.trees import is_jax_array, same_tree
from liftnn._src.variables.storage import Storage
from liftnn._src.variables.watch import is_simple


class Unseen(Exception):  # noqa: N818  # not an error: such calls take the slow path
    """Raised if liftnn can neither observe nor check the changes of an object in the arguments."""


class EarlierContent(NamedTuple):
    """A static value that can change in place, with a copy of its earlier content."""

    value: Any
    snapshot: Snapshot

    def holds(self) -> bool:
        """Return whether it still equals the copy; called outside of traces."""
        return self.snapshot.matches(self.value, in_trace=False)


class Constant(NamedTuple):
    """An array leaf of a captured module, which is a constant of the program.

    Args:
      reader: Reads the current array.
      array: The array that was traced.
      content: The content of a numpy array in hashable form; None for other arrays.
    """

    reader: Reader
    array: Any
    content: Any

    def holds(self) -> bool:
        """Return whether it is still the same array with the same content."""
        now = self.reader.read()
        return now is self.array and (self.content is None or content_of(now) == self.content)


class Stored(NamedTuple):
    """The arguments stored in a partial, which other code can change in place.

    Args:
      trees: The trees of arguments.
      leaves: Their leaves.
      structure: Their structure.
    """

    trees: Any
    leaves: list[Any]
    structure: Any

    def holds(self) -> bool:
        """Return whether they still have the same structure and leaves."""
        leaves, structure = jax.tree.flatten(self.trees, is_leaf=is_object)
        return same_tree(structure, self.structure) and all(map(is_, leaves, self.leaves))


class UnsharedValues(NamedTuple):
    """The values of Variables that are lists, dicts or other containers; no two Variables may hold the same one.

    Args:
      storages: The storages of all Variables, which change if a Variable is replaced.
      positions: The positions of those with containers.
    """

    storages: Sequence[Storage]
    positions: Sequence[int]

    def holds(self) -> bool:
        """Return whether no container is reached twice; else the slow path raises the error."""
        try:
            check_unshared({i: self.storages[i].value for i in self.positions})
        except errors.StructureError:
            return False
        return True


def find_containers(storages: Sequence[Storage]) -> list[Check]:
    """Return the check that no two Variables hold the same container; none if all of them hold arrays."""
    positions = [i for i, storage in enumerate(storages) if has_containers(storage.value)]
    return [UnsharedValues(storages, positions)] if positions else []


class StaticInValues(NamedTuple):
    """Objects in the values of Variables that may capture modules, such as functions.

    Args:
      storages: The storages of all Variables.
      found: The objects in the value of each, by position.
    """

    storages: Sequence[Storage]
    found: dict[int, list[Any]]

    def holds(self) -> bool:
        """Return whether the values hold the same objects."""
        for i, before in self.found.items():
            now = _objects_in(self.storages[i].value)
            if len(now) != len(before) or not all(map(is_, now, before)):
                return False
        return True


def find_static(storages: Sequence[Storage]) -> list[Check]:
    """Return the check of objects in the values of Variables that may capture modules; none without such objects."""
    values = {i: x.value for i, x in enumerate(storages) if not is_jax_array(x.value)}
    found = {i: objects for i, value in values.items() if (objects := _objects_in(value))}
    return [StaticInValues(storages, found)] if found else []


def _objects_in(value: Any) -> list[Any]:
    """Return the objects in the value of a Variable that are neither arrays nor atoms."""
    return [x for x in static_in_value(value) if not is_atom(x)]


def find_stored(stored: Any) -> list[Check]:
    """Return the check of the arguments stored in a partial; none if there is no partial or they cannot change."""
    if stored is None or all(map(jax.tree_util.all_leaves, ([x] for x in (*stored[0], *stored[1].values())))):
        return []
    return [Stored(stored, *jax.tree.flatten(stored, is_leaf=is_object))]


class Reader(NamedTuple):
    """The location of an array leaf, from which it is read.

    Args:
      holder: A mapping or list, or an object with a `__slots__` attribute; a weak reference to the module if it must
        not be kept alive; None if the array is `fixed`.
      key: The key in the mapping or list, or the name of the attribute.
      is_slot: Whether the key is the name of an attribute.
      fixed: The array itself, if its holder is immutable.
    """

    holder: Any
    key: Any
    is_slot: bool = False
    fixed: Any = None

    def read(self) -> Any:
        """Return the current array."""
        if self.holder is None:
            return self.fixed
        if isinstance(self.holder, weakref.ref):
            return attributes_of(self.holder())[self.key]
        if self.is_slot:
            return getattr(self.holder, self.key)
        return base_of(type(self.holder)).__getitem__(self.holder, self.key)  # past the code of a subclass


def find_checks(call: Call) -> list[Check]:
    """Make the checks of all objects that the arguments of a call reach.

    Args:
      call: The call.

    Returns:
      The checks.

    Raises:
      Unseen: If an object can be neither observed nor checked.
    """
    found: list[Check] = []
    for number, (x, spec) in enumerate(zip(call.objects, call.plan.graph.specs, strict=True)):
        if not spec.keys and spec.kind is VARIABLE:
            continue
        _, keys, children = spec.kind.flatten(x)
        if len(keys) != len(spec.keys) or len(children) != len(spec.keys):
            raise Unseen  # another thread has changed it since the walk
        found += check_node(x, spec, tuple(children))
        for key, edge, child in zip(spec.keys, spec.edges, children, strict=True):
            if edge is ARRAY and number in call.plan.captured:
                found.append(Constant(_reader(x, spec, key, child, False), child, content_of(child)))
            elif type(edge) is Static and isinstance(edge.key, Snapshot):
                found.append(EarlierContent(child, edge.key))
    return found


def find_lent(plan: Plan) -> tuple[int, ...]:
    """Find the nodes that a compiled function must not keep alive: the arguments, and what is only weakly referred to.

    Args:
      plan: The arguments.

    Returns:
      The nodes that are arguments themselves, then the Modules and Variables that only weak references reach, such as
      the parent of a layer.
    """
    specs = plan.graph.specs
    if not any(spec.kind is REFERENCE for spec in specs):
        return plan.argument_roots
    reached = reach(specs, plan.graph.edges, lambda spec: spec.kind is not REFERENCE)
    weakly = [n for n, spec in enumerate(specs) if n not in reached and spec.kind in (MODULE, VARIABLE)]
    return (*plan.argument_roots, *weakly)


def find_readers(call: Call, lent: Container[int]) -> list[Reader]:
    """Return readers of the array leaves of a partial and of nodes, in the order of the program's arguments.

    Args:
      call: The call.
      lent: The nodes that must not be kept alive.

    Returns:
      The readers.
    """
    paths = call.plan.leaf_paths
    pairs = zip(call.plan.slots, call.leaves, strict=True)
    stored = [x for slot, x in pairs if slot.node == ROOT and paths[slot.key][0] == STORED]
    found = [Reader(None, None, fixed=x) for x in stored]
    for number, (x, spec) in enumerate(zip(call.objects, call.plan.graph.specs, strict=True)):
        if ARRAY in spec.edges:
            _, keys, children = spec.kind.flatten(x)
            found += [
                _reader(x, spec, key, child, number in lent)
                for key, edge, child in zip(keys, spec.edges, children, strict=True)
                if edge is ARRAY
            ]
    return found


def _reader(x: Any, spec: NodeSpec, key: Any, child: Any, is_lent: bool) -> Reader:
    """Return the reader of an array leaf."""
    if spec.kind in (LIST, DICT):
        return Reader(x, key)
    if spec.kind is CELL:
        return Reader(x, "cell_contents", is_slot=True)
    if spec.kind is MODULE and key in attributes_of(x):
        return Reader(weakref.ref(x), key) if is_lent else Reader(attributes_of(x), key)
    if spec.kind.frozen and spec.kind is not PYTREE:
        return Reader(None, key, fixed=child)
    raise Unseen


class Attribute(NamedTuple):
    """A static attribute that varies between calls, and its value in one call.

    Args:
      module: A weak reference to the module, since the fast path must not keep an argument alive.
      name: The name of the attribute.
      value: Its value.
    """

    module: weakref.ref[Any]
    name: str
    value: Any

    def holds(self) -> bool:
        """Return whether it has the value."""
        return same_static(attributes_of(self.module()).get(self.name, ABSENT), self.value)


def find_varying(call: Call, names: frozenset[str]) -> list[Attribute]:
    """Find the varying attributes, such as `deterministic`, of all modules of a call.

    Args:
      call: The call.
      names: The names of the varying attributes.

    Returns:
      The attributes.

    Raises:
      Unseen: If one of them is in `__slots__`.
    """
    found: list[Attribute] = []
    for x, spec in zip(call.objects, call.plan.graph.specs, strict=True):
        for name in names.intersection(spec.keys) if spec.kind is MODULE else ():
            attributes = attributes_of(x)
            if name in attributes and is_simple(attributes[name]):
                found.append(Attribute(weakref.ref(x), name, attributes[name]))
            elif name not in attributes:
                raise Unseen
    return found
