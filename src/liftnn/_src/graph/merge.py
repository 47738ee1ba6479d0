"""The merge: from node specs and dynamic leaves back to live objects, new ones or the old ones in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from liftnn._src.graph.kinds import DICT, LIST, PYTREE, VARIABLE
from liftnn._src.graph.slots import ARRAY, OUTPUT, Slot, array_slots, tree_slots, value_slots
from liftnn._src.graph.undo import Former, to_the_end
from liftnn._src.static_values.static import Static
from liftnn._src.trees import Key, is_jax_array
from liftnn._src.variables.variable import make_variable, set_value_past_hooks


class Given(NamedTuple):
    """The value a Variable was given at the start of a call.

    Args:
      value: What it holds.
      leaves: The arrays in it, None if it is an array itself.
      treedef: Their tree.
    """

    value: Any
    leaves: list[Any] | None
    treedef: Any


class Merged:
    """Objects made from a GraphSpec, by number, with what they were made from.

    Args:
      description: Their description.
      owner: What they belong to.
    """

    def __init__(self, description: GraphSpec, owner: Any):
        self.specs = description.specs
        self.frozen = description.frozen
        self.objects: list[Any] = [None] * len(description.specs)
        self.arrays: list[list[Any]] = []
        self.children: dict[int, list[Any]] = {}
        """What was put into those nodes of which identity tells whether they have changed since."""
        self.given: dict[int, Given] = {}
        self.pytree_children: dict[int, list[Any]] = {}
        self.owner = owner


def merge_all(description: GraphSpec, leaves: Sequence[Any], owner: Any) -> tuple[Any, Merged]:
    """New objects from a GraphSpec.

    Args:
      description: The description.
      leaves: The dynamic leaves, in the order of `GraphSpec.slots`.
      owner: What the new objects belong to.

    Returns:
      The tree that was split, and the objects by number.
    """
    merged = Merged(description, owner)
    taken = iter(leaves)
    merged.given = {n: own_value(next(taken)) for n, x in enumerate(description.specs) if x.kind is VARIABLE}
    root_arrays = _take(taken, description.edges)
    merged.arrays = [_take(taken, spec.edges) if spec.edges else [] for spec in description.specs]
    for number, spec in enumerate(description.specs):
        if spec.kind is VARIABLE:
            entry = merged.given[number]
            merged.objects[number] = make_variable(spec.type, entry.value, spec.extra, owner)
        elif not spec.kind.frozen:
            merged.objects[number] = spec.kind.make(spec.type, spec.extra, owner)
    build_frozen(description.specs, description.frozen, merged.objects, merged.arrays)
    for number, spec in enumerate(description.specs):
        if spec.kind is PYTREE:
            children = jax.tree.leaves(
                merged.objects[number], is_leaf=lambda y, x=merged.objects[number]: y is not x
            )
            merged.pytree_children[number] = children
        if not spec.kind.frozen and (spec.kind is not VARIABLE or spec.keys):
            children = resolve(spec, merged.objects, merged.arrays[number])
            spec.kind.fill(merged.objects[number], spec.extra, spec.keys, children)
            if not description.frozen or not any(
                type(e) is int and description.specs[e].kind.frozen for e in spec.edges
            ):
                merged.children[number] = children
    return unflatten_root(
        description.treedef, resolve_edges(description.edges, merged.objects, root_arrays)
    ), merged


def own_value(value: Any) -> Given:
    """A value that can be changed in place without the caller's copy changing.

    Args:
      value: An array or a pytree.

    Returns:
      The array itself, or a fresh copy of the pytree's containers, with what is needed to see a change.
    """
    if is_jax_array(value):
        return Given(value, None, None)
    leaves, treedef = jax.tree.flatten(value)
    if len(leaves) == 1 and leaves[0] is value:
        return Given(value, None, None)
    return Given(treedef.unflatten(leaves), leaves, treedef)


def build_frozen(
    specs: Sequence[NodeSpec], order: Iterable[int], objects: list[Any], arrays: Sequence[list[Any]]
) -> None:
    """Builds frozen nodes into `objects`, in an order in which each finds its children there."""
    for number in order:
        spec = specs[number]
        if spec.kind is PYTREE:
            _fill_containers(spec, specs, objects, arrays)
        children = resolve(spec, objects, arrays[number])
        objects[number] = spec.kind.unflatten(spec.type, spec.extra, spec.keys, children)


def _fill_containers(spec: NodeSpec, specs: Any, objects: Sequence[Any], arrays: Any, known: int = 0) -> None:
    """Fills the lists and dicts in a pytree before it is built, since its class may look into them.

    Args:
      spec: The pytree.
      specs: Node specs by number.
      objects: Objects by number.
      arrays: The array leaves of each node, by number.
      known: How many objects existed before, which are as they should be.
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
            filled = resolve(child, objects, arrays[number])
            child.kind.fill(objects[number], child.extra, child.keys, filled)
        stack += inner


def resolve(
    spec: NodeSpec, objects: Sequence[Any], arrays: Sequence[Any], keep: Callable[[Any], Any] | None = None
) -> list[Any]:
    """The children that the edges of a node stand for.

    Args:
      spec: The node.
      objects: Objects by number.
      arrays: The node's array leaves.
      keep: Gives what the object has at a key already; needed only for the description of a change.

    Returns:
      The children.
    """
    return resolve_edges(spec.edges, objects, arrays, spec.keys, keep)


def resolve_edges(
    edges: Sequence[Any],
    objects: Sequence[Any],
    arrays: Sequence[Any],
    keys: Sequence[Any] = (),
    keep: Callable[[Any], Any] | None = None,
) -> list[Any]:
    """The children that edges stand for; see `resolve`."""
    children: list[Any] = []
    taken = iter(arrays)
    for position, edge in enumerate(edges):
        if type(edge) is int:
            children.append(objects[edge])
        elif edge is ARRAY:
            children.append(next(taken))
        elif edge is KEEP:
            assert keep is not None
            children.append(keep(keys[position]))
        else:
            children.append(static_of(edge))
    return children


def unflatten_root(treedef: Any, leaves: list[Any]) -> Any:
    """The tree whose leaves these are; a single leaf if there is no treedef."""
    return leaves[0] if treedef is None else treedef.unflatten(leaves)


def _take(arrays: Any, edges: Sequence[Any]) -> list[Any]:
    """The next arrays, one for each array edge."""
    return [next(arrays) for e in edges if e is ARRAY]


class GraphDelta(NamedTuple):
    """The static description of what a call returned, made and changed. KEEP edges stand for what is there already.

    Args:
      treedef: Structure of the output.
      edges: The output's leaves.
      known: How many objects existed before.
      changed: Number and spec of each known node that changed.
      new: The specs of the nodes made since, numbered on from `known`.
      frozen: Order in which frozen nodes are built.
      paths: The path of each leaf of the output.
      written: The known Variables whose values were written.
    """

    treedef: Any
    edges: tuple[Any, ...]
    known: int
    changed: tuple[tuple[int, NodeSpec], ...]
    new: tuple[NodeSpec, ...]
    frozen: tuple[int, ...]
    paths: LeafPaths
    written: tuple[int, ...] = ()

    @property
    def slots(self) -> list[Slot]:
        """What a call returns: arrays of the output, other array leaves, values of new Variables, written values."""
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
    """Puts the result of a call into the objects it was called with: all of it, or nothing.

    All that can fail is done before the first object is touched. If an exception arrives while they are filled, such as
    that of a signal handler, they are filled to the end before it is raised again.

    Args:
      change: The description of the result.
      objects: The known objects by number; new ones are appended.
      leaves: The dynamic leaves, in the order of `GraphDelta.slots`.
      owner: What new objects belong to.
      finish: Called with the output when the objects have been filled; gives the result. If it raises, the objects are
        as they were before. The default, None, gives the output.

    Returns:
      The output of the call, or what `finish` made of it.
    """
    specs, fills, updates, out = _prepare(change, objects, leaves, owner)
    known = {n for n, spec in change.changed if not spec.kind.frozen} | updates.keys()
    former = [Former(objects[number]) for number in known]
    done: list[bool] = []

    def write() -> None:
        _write(specs, objects, fills, updates)
        done.append(True)

    def undo() -> None:
        for x in former:
            x.restore()

    try:
        to_the_end(write)
        return out if finish is None else _finished(finish, out, done)
    except BaseException:
        if not done:
            try:
                undo()
            except BaseException:  # another one has arrived
                to_the_end(undo)
                raise
        raise


def _finished(finish: Callable[[Any], Any], out: Any, done: list[bool]) -> Any:
    """What `finish` makes of the output; while it runs the commit does not count as done."""
    done.clear()
    result = finish(out)
    done.append(True)
    return result


_Fills = list[tuple[int, list[Any]]]


def _prepare(
    change: GraphDelta, objects: list[Any], leaves: Sequence[Any], owner: Any
) -> tuple[dict[int, NodeSpec], _Fills, dict[int, Any], Any]:
    """The first half of a commit: makes all that is new. Gives the specs, what to fill, new values, and the output."""
    taken = iter(leaves)
    root_arrays = _take(taken, change.edges)
    specs: dict[int, NodeSpec] = {**dict(change.changed), **dict(enumerate(change.new, change.known))}
    by_node = {number: _take(taken, spec.edges) for number, spec in specs.items()}
    for spec in change.new:
        made: Any = None
        if spec.kind is VARIABLE:
            made = make_variable(spec.type, next(taken), spec.extra, owner)
        elif not spec.kind.frozen:
            made = spec.kind.make(spec.type, spec.extra, owner)
        objects.append(made)
    updates = {number: next(taken) for number in change.written}
    fills: _Fills = []
    for number in change.frozen:
        spec = specs[number]
        if spec.kind is PYTREE:
            _fill_containers(spec, specs, objects, by_node, change.known)
        children = resolve(spec, objects, by_node[number], _keeper(spec, objects[number]))
        objects[number] = spec.kind.unflatten(spec.type, spec.extra, spec.keys, children)
    for number, spec in specs.items():
        if spec.kind.frozen or (spec.kind is VARIABLE and not spec.keys):
            continue
        fills.append((number, resolve(spec, objects, by_node[number], _keeper(spec, objects[number]))))
    out = unflatten_root(change.treedef, resolve_edges(change.edges, objects, root_arrays))
    return specs, fills, updates, out


def _write(
    specs: Mapping[int, NodeSpec], objects: Sequence[Any], fills: _Fills, updates: Mapping[int, Any]
) -> None:
    """The second half of a commit: only assignments, each of which may be repeated."""
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
    """Sets arrays in frozen nodes: these are built anew, and what holds them gets the new ones.

    Args:
      description: The structure.
      objects: The live objects by number; no root of the description may be among those that are built anew.
      new: The new arrays by node and key.
      owner: What new objects belong to.
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


def _keeper(spec: NodeSpec, x: Any) -> Callable[[Any], Any]:
    """Gives what an object has at a key, looked up once, when the first KEEP asks."""
    found: dict[Any, Any] = {}

    def keep(key: Any) -> Any:
        if not found:
            _, keys, children = spec.kind.flatten(x)
            found.update(zip(keys, children, strict=True))
        return found[key]

    return keep
