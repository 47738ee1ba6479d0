"""What a call depends on beside its arguments' structure: objects that cannot notify, constants, varying attributes."""

from __future__ import annotations

import weakref
from operator import is_
from typing import Any, NamedTuple

import jax

from liftnn._src.captures.pinned import content_of
from liftnn._src.compilation.patterns import same_static
from liftnn._src.graph.attributes import attributes_of
from liftnn._src.graph.checks import ABSENT, Check, check_node
from liftnn._src.graph.description import NodeSpec
from liftnn._src.graph.kinds import CELL, DICT, LIST, MODULE, PYTREE, VARIABLE, is_object
from liftnn._src.graph.slots import ARRAY, ROOT
from liftnn._src.lifting.contract import STORED
from liftnn._src.lifting.lift import Call
from liftnn._src.static_values.static import Snapshot, Static
from liftnn._src.trees import same_tree
from liftnn._src.variables.watch import is_simple


class Unseen(Exception):  # noqa: N818  # not an error: such calls are flattened each time
    """Raised where arguments hold something whose changes could not be seen."""


class Content(NamedTuple):
    """A static value that can change in place, with a copy of what it was."""

    value: Any
    snapshot: Snapshot

    def holds(self) -> bool:
        """Whether it still equals the copy."""
        return Snapshot(self.value) == self.snapshot


class Constant(NamedTuple):
    """An array leaf of a captured module, which is a constant of the program.

    Args:
      reader: Reads what stands there.
      array: What stood there.
      content: What tells its content, if it is numpy's.
    """

    reader: Reader
    array: Any
    content: Any

    def holds(self) -> bool:
        """Whether it is the same array, with the same content."""
        now = self.reader.read()
        return now is self.array and (self.content is None or content_of(now) == self.content)


class Stored(NamedTuple):
    """What a partial stores: trees that whoever holds it can change.

    Args:
      trees: The trees of arguments.
      leaves: Their leaves.
      structure: Their structure.
    """

    trees: Any
    leaves: list[Any]
    structure: Any

    def holds(self) -> bool:
        """Whether they have the same structure, with the same leaves."""
        leaves, structure = jax.tree.flatten(self.trees, is_leaf=is_object)
        return same_tree(structure, self.structure) and all(map(is_, leaves, self.leaves))


def find_stored(stored: Any) -> list[Check]:
    """The check of what a partial stores; none if it is no partial, or nothing in it can be changed."""
    if stored is None or all(map(jax.tree_util.all_leaves, ([x] for x in (*stored[0], *stored[1].values())))):
        return []
    return [Stored(stored, *jax.tree.flatten(stored, is_leaf=is_object))]


class Reader(NamedTuple):
    """Reads an array leaf from where it stands.

    Args:
      holder: A mapping or list, or an object with a slot; of a module that is an argument a weak reference.
      key: Which of its elements, or the name of the slot.
      is_slot: Whether it is a slot.
      fixed: The array itself, if what holds it cannot be changed.
    """

    holder: Any
    key: Any
    is_slot: bool = False
    fixed: Any = None

    def read(self) -> Any:
        """The array that stands there now."""
        if self.holder is None:
            return self.fixed
        if isinstance(self.holder, weakref.ref):  # a module that is an argument itself
            return attributes_of(self.holder())[self.key]
        return getattr(self.holder, self.key) if self.is_slot else self.holder[self.key]


def find_checks(call: Call) -> list[Check]:
    """The checks of everything that the arguments of a call reach.

    Args:
      call: The call.

    Returns:
      The checks.

    Raises:
      Unseen: If the arguments hold something whose changes could not be seen.
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
                found.append(Content(child, edge.key))
    return found


def find_readers(call: Call) -> list[Reader]:
    """How the array leaves of a partial and of nodes are read, in the order in which the program takes them."""
    paths = call.plan.leaf_paths
    pairs = zip(call.plan.slots, call.leaves, strict=True)
    stored = [x for slot, x in pairs if slot.node == ROOT and paths[slot.key][0] == STORED]
    found = [Reader(None, None, fixed=x) for x in stored]
    roots = call.plan.argument_roots
    for number, (x, spec) in enumerate(zip(call.objects, call.plan.graph.specs, strict=True)):
        if ARRAY in spec.edges:
            _, keys, children = spec.kind.flatten(x)
            found += [
                _reader(x, spec, key, child, number in roots)
                for key, edge, child in zip(keys, spec.edges, children, strict=True)
                if edge is ARRAY
            ]
    return found


def _reader(x: Any, spec: NodeSpec, key: Any, child: Any, is_argument: bool) -> Reader:
    """How an array leaf is read from where it stands."""
    if spec.kind in (LIST, DICT):
        return Reader(x, key)
    if spec.kind is CELL:
        return Reader(x, "cell_contents", is_slot=True)
    if spec.kind is MODULE and key in attributes_of(x):
        return Reader(weakref.ref(x), key) if is_argument else Reader(attributes_of(x), key)
    if spec.kind.frozen and spec.kind is not PYTREE:
        return Reader(None, key, fixed=child)
    raise Unseen


class Attribute(NamedTuple):
    """A static attribute that is known to vary between calls, and its value in this one.

    Args:
      module: The module, weakly: it may be an argument, which must not be kept alive.
      name: Which.
      value: Its value.
    """

    module: weakref.ref[Any]
    name: str
    value: Any

    def holds(self) -> bool:
        """Whether it has the value."""
        return same_static(attributes_of(self.module()).get(self.name, ABSENT), self.value)


def find_varying(call: Call, names: frozenset[str]) -> list[Attribute]:
    """The static attributes of some names, such as `deterministic`, of all modules of a call.

    Args:
      call: The call.
      names: The names.

    Returns:
      The attributes.

    Raises:
      Unseen: If one of them is in a slot.
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
