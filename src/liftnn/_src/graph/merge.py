"""Unflatten and commit: node specs and dynamic leaves become live objects, new ones or the old ones in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import is_
from typing import Any, NamedTuple

import jax

from liftnn._src.graph.description import (
    KEEP,
    GraphSpec,
    LeafPaths,
    NodeSpec,
    find_holders,
    keep_leaves,
    static_of,
)
from liftnn._src.graph.kinds import DICT, LIST, PYTREE, VARIABLE, children_of_pytree
from liftnn._src.graph.slots import ARRAY, OUTPUT, Slot, array_slots, tree_slots, value_slots
from liftnn._src.graph.undo import all_or_nothing
from liftnn._src.static_values.static import Snapshot, Static, static_key
from liftnn._src.trees import Key, has_changed, is_argument_array, is_jax_array
from liftnn._src.variables.variable import make_variable, set_value_past_hooks


class Merged:
    """Objects built from a GraphSpec, by number, together with their contents at that time.

    Args:
      description: The GraphSpec.
      owner: The owner of the objects.
    """

    def __init__(self, description: GraphSpec, owner: Any):
        self.specs = description.specs
        self.frozen = description.frozen
        self.objects: list[Any] = [None] * len(description.specs)
        self.arrays: list[Sequence[Any]] = []
        self.children: dict[int, list[Any]] = {}
        """The children of the nodes that were filled."""
        self.values: dict[int, Any] = {}
        """The value of each Variable."""
        self.trees: dict[int, tuple[list[Any], Any]] = {}
        """Leaves and tree structure of those values that are not a single leaf."""
        self.changeable: dict[int, list[tuple[Any, Snapshot]]] = {}
        """The leaves of values that can change in place, such as sets, and what they held; see `note_changeable`."""
        self.unusual: list[int] = []
        """The Variables with values that are not arrays of JAX."""
        self.pytree_children: dict[int, Sequence[Any]] = {}
        """The children of the registered pytrees."""
        self.owner = owner

    def is_written(self, number: int) -> bool:
        """Return whether a Variable holds another value than at first, or one that was changed in place."""
        value = self.objects[number]._value
        if value is not self.values[number]:
            return True
        if number in self.changeable and not all(old.matches(x) for x, old in self.changeable[number]):
            return True
        if number not in self.trees:
            return False
        (old, old_treedef), (new, treedef) = self.trees[number], jax.tree.flatten(value)
        if len(new) != len(old) or not all(map(is_, new, old)):
            return True
        return has_changed(old_treedef, treedef, lambda: jax.tree.structure(value))

    def note_changeable(self) -> None:
        """Note what the leaves of values hold that can change in place, before the user's function runs."""
        for number in self.unusual:
            self.changeable[number] = find_changeable(jax.tree.leaves(self.values[number]))


def find_changeable(leaves: Iterable[Any]) -> list[tuple[Any, Snapshot]]:
    """Find the leaves other than arrays that can change in place, such as sets.

    Args:
      leaves: The leaves of a pytree.

    Returns:
      Each of them with what it holds now.
    """
    keys = [(x, static_key(x)) for x in leaves if not is_argument_array(x)]
    return [(x, key) for x, key in keys if isinstance(key, Snapshot) and key.is_copy]


def merge_all(
    description: GraphSpec, leaves: Sequence[Any], owner: Any, variables: Mapping[int, Any] = {}
) -> tuple[Any, Merged]:
    """Build new objects from a GraphSpec.

    Args:
      description: The GraphSpec.
      leaves: The dynamic leaves, in the order of `GraphSpec.slots`.
      owner: The owner of the new objects.
      variables: Variables to use as they are, by number; the others are new. The default, none, makes all of them new.

    Returns:
      The tree that was split, and the objects by number.
    """
    specs, frozen = description.specs, description.frozen
    merged = Merged(description, owner)
    objects, values, taken = merged.objects, merged.values, iter(leaves)
    for number in description.variables:
        value = next(taken)
        if not is_jax_array(value):
            merged.unusual.append(number)
            value, tree = own_value(value)
            if tree is not None:
                merged.trees[number] = tree
        values[number] = value
        spec = specs[number]
        known = variables.get(number, KEEP)
        objects[number] = make_variable(spec.type, value, spec.extra, owner) if known is KEEP else known
    root_arrays = _take(taken, description.edges)
    is_last = len(values) + len(root_arrays) == len(leaves)
    merged.arrays = [()] * len(specs) if is_last else [_take(taken, spec.edges) for spec in specs]
    to_fill = description.to_fill
    for number in to_fill:
        spec = specs[number]
        if spec.kind is not VARIABLE:
            objects[number] = spec.kind.make(spec.type, spec.extra, owner)
    build_frozen(specs, frozen, objects, merged.arrays)
    for number in to_fill:
        if number in variables:
            continue
        spec = specs[number]
        merged.children[number] = children = resolve(spec.edges, objects, merged.arrays[number])
        spec.kind.fill(objects[number], spec.extra, spec.keys, children)
    for number in frozen:
        if specs[number].kind is PYTREE:
            merged.pytree_children[number] = children_of_pytree(objects[number])
    root = resolve(description.edges, objects, root_arrays)
    return unflatten_root(description.treedef, root), merged


def own_value(value: Any) -> tuple[Any, tuple[list[Any], Any] | None]:
    """Return a value that can be changed in place without changing the caller's copy.

    Args:
      value: A pytree.

    Returns:
      The value, with new containers; and its leaves and structure, or None if it is a single leaf.
    """
    leaves, treedef = jax.tree.flatten(value)
    if len(leaves) == 1 and leaves[0] is value:
        return value, None
    return treedef.unflatten(leaves), (leaves, treedef)


def build_frozen(
    specs: Sequence[NodeSpec], order: Iterable[int], objects: list[Any], arrays: Sequence[Sequence[Any]]
) -> None:
    """Build frozen nodes into `objects`, in an order in which each finds its children there."""
    for number in order:
        spec = specs[number]
        if spec.kind is PYTREE:
            _fill_containers(spec, specs, objects, arrays)
        children = resolve(spec.edges, objects, arrays[number])
        objects[number] = spec.kind.unflatten(spec.type, spec.extra, spec.keys, children)


def _fill_containers(spec: NodeSpec, specs: Any, objects: Sequence[Any], arrays: Any, known: int = 0) -> None:
    """Fill the lists and dicts in a pytree before it is built, since its class may read them.

    Args:
      spec: The pytree.
      specs: Node specs by number.
      objects: Objects by number.
      arrays: The array leaves of each node, by number.
      known: The number of objects that existed before, which need no filling.
    """
    seen: set[int] = set()
    stack = [e for e in spec.edges if type(e) is int]
    while stack:
        number = stack.pop()
        if number < known or number in seen or specs[number].kind not in (LIST, DICT):
            continue
        seen.add(number)
        child = specs[number]
        inner = [e for e in child.edges if type(e) is int]
        if all(objects[e] is not None for e in inner):
            filled = resolve(child.edges, objects, arrays[number])
            child.kind.fill(objects[number], child.extra, child.keys, filled)
        stack += inner


def resolve(edges: Sequence[Any], objects: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:
    """Return the children that edges denote; KEEP for a child that the object already has.

    Args:
      edges: The edges of a node, or of a tree.
      objects: Objects by number.
      arrays: The array leaves among the children.

    Returns:
      The children.
    """
    taken = iter(arrays)
    return [
        objects[e] if type(e) is int else next(taken) if e is ARRAY else e if e is KEEP else static_of(e)
        for e in edges
    ]


def unflatten_root(treedef: Any, leaves: list[Any]) -> Any:
    """Return the tree with these leaves; the single leaf if there is no treedef."""
    return leaves[0] if treedef is None else treedef.unflatten(leaves)


def _take(arrays: Any, edges: Sequence[Any]) -> list[Any]:
    """Return the next arrays, one for each array edge."""
    return [next(arrays) for e in edges if e is ARRAY]


class GraphDelta(NamedTuple):
    """The static description of what a call returned, created and changed; KEEP edges mark unchanged children.

    Args:
      treedef: Structure of the output.
      edges: The edges of the output's leaves.
      known: The number of objects that existed before.
      changed: Number and spec of each known node that changed.
      new: The specs of the new nodes, numbered from `known`.
      frozen: The order in which frozen nodes are built.
      paths: The path of each leaf of the output.
      written: The numbers of the known Variables that were written.
      donated: The numbers of the known nodes that are among them, or changed, only because they were donated.
    """

    treedef: Any
    edges: tuple[Any, ...]
    known: int
    changed: tuple[tuple[int, NodeSpec], ...]
    new: tuple[NodeSpec, ...]
    frozen: tuple[int, ...]
    paths: LeafPaths
    written: tuple[int, ...] = ()
    donated: tuple[int, ...] = ()

    @property
    def slots(self) -> list[Slot]:
        """The dynamic leaves that a call returns: of the output, of nodes, of new Variables, of written Variables."""
        new = list(enumerate(self.new, self.known))
        outputs, written = tree_slots(OUTPUT, self.edges), map(Slot, self.written)
        return [*outputs, *array_slots((*self.changed, *new)), *value_slots(new), *written]


jax.tree_util.register_static(GraphDelta)


def commit(
    change: GraphDelta,
    objects: list[Any],
    leaves: Sequence[Any],
    owner: Any,
    finish: Callable[[Any], Any] | None = None,
) -> Any:
    """Write the result of a call into its arguments: completely, or not at all.

    Everything that can fail is done before the first object is changed. If an exception arrives while objects are being
    filled, for example from a signal handler, all of them are filled before it is raised again.

    Args:
      change: The description of the result.
      objects: The known objects by number; new ones are appended.
      leaves: The dynamic leaves, in the order of `GraphDelta.slots`.
      owner: The owner of the new objects.
      finish: Called with the output after the objects have been filled; returns the result. If it raises, the objects
        are restored. The default, None, returns the output.

    Returns:
      The output of the call, or the result of `finish`.
    """
    specs, fills, updates, out = _prepare(change, objects, leaves, owner)
    known = {n for n, spec in change.changed if not spec.kind.frozen} | updates.keys()
    written = [objects[number] for number in known]
    finished = all_or_nothing(
        written,
        lambda: _write(specs, objects, fills, updates),
        None if finish is None else lambda: finish(out),
    )
    return out if finish is None else finished


_Fills = list[tuple[int, list[Any]]]


def _prepare(
    change: GraphDelta, objects: list[Any], leaves: Sequence[Any], owner: Any
) -> tuple[dict[int, NodeSpec], _Fills, dict[int, Any], Any]:
    """Create everything new: the first half of a commit. Return the specs, fills, new values, and the output."""
    taken = iter(leaves)
    root_arrays = _take(taken, change.edges)
    specs: dict[int, NodeSpec] = {**dict(change.changed), **dict(enumerate(change.new, change.known))}
    by_node = {number: _take(taken, spec.edges) for number, spec in specs.items()}
    for spec in change.new:
        created: Any = None
        if spec.kind is VARIABLE:
            created = make_variable(spec.type, next(taken), spec.extra, owner)
        elif not spec.kind.frozen:
            created = spec.kind.make(spec.type, spec.extra, owner)
        objects.append(created)
    updates = {number: next(taken) for number in change.written}
    fills: _Fills = []
    for number in change.frozen:
        spec = specs[number]
        if spec.kind is PYTREE:
            _fill_containers(spec, specs, objects, by_node, change.known)
        children = _with_kept(spec, objects[number], resolve(spec.edges, objects, by_node[number]))
        objects[number] = spec.kind.unflatten(spec.type, spec.extra, spec.keys, children)
    for number, spec in specs.items():
        if spec.kind.frozen or (spec.kind is VARIABLE and not spec.keys):
            continue
        children = resolve(spec.edges, objects, by_node[number])
        fills.append((number, _with_kept(spec, objects[number], children)))
    out = unflatten_root(change.treedef, resolve(change.edges, objects, root_arrays))
    return specs, fills, updates, out


def _write(
    specs: Mapping[int, NodeSpec], objects: Sequence[Any], fills: _Fills, updates: Mapping[int, Any]
) -> None:
    """Assign to the known objects: the second half of a commit, which can be repeated."""
    for number, spec in specs.items():
        if type(objects[number]) is not spec.type and not spec.kind.frozen:
            object.__setattr__(objects[number], "__class__", spec.type)
        if spec.kind is VARIABLE and not spec.keys:
            spec.kind.fill(objects[number], spec.extra, (), [])
    for number, children in fills:
        spec = specs[number]
        spec.kind.fill(objects[number], spec.extra, spec.keys, children)
    for number, value in updates.items():
        set_value_past_hooks(objects[number], value)


def set_frozen_arrays(
    description: GraphSpec, objects: Sequence[Any], new: Mapping[int, Mapping[Key, Any]], owner: Any
) -> None:
    """Set array leaves of frozen nodes by rebuilding these nodes and replacing them in their holders.

    Args:
      description: The structure.
      objects: The live objects by number; no root of the description may be rebuilt.
      new: The new arrays by node and key.
      owner: The owner of the new objects.
    """
    changed: dict[int, NodeSpec] = {}
    for number, arrays in new.items():
        spec = description.specs[number]
        edges = [
            e if type(e) is int else ARRAY if key in arrays else KEEP
            for key, e in zip(spec.keys, spec.edges, strict=True)
        ]
        changed[number] = spec._replace(edges=tuple(edges))
    for number in find_holders(description.specs, changed.keys()):
        changed[number] = keep_leaves(description.specs[number])
    order = tuple([n for n in description.frozen if n in changed])
    change = GraphDelta(None, (Static(None),), len(objects), tuple(changed.items()), (), order, LeafPaths())
    taken = [
        new[number][key] for number in new for key in description.specs[number].keys if key in new[number]
    ]
    commit(change, list(objects), taken, owner)


def _with_kept(spec: NodeSpec, x: Any, children: list[Any]) -> list[Any]:
    """Return the children of a changed node, with those that the object already has in place of KEEP."""
    if KEEP not in spec.edges:
        return children
    _, keys, now = spec.kind.flatten(x)
    kept = dict(zip(keys, now, strict=True))
    return [kept[key] if child is KEEP else child for key, child in zip(spec.keys, children, strict=True)]
