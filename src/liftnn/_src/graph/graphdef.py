"""Split and merge: divide a tree of modules into States and a GraphDef, and rebuild it from them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar, overload

import jax

from liftnn import errors
from liftnn._src.filters import Filter, check_tags, first_match, to_predicates
from liftnn._src.graph.description import GraphSpec, LeafPaths
from liftnn._src.graph.kinds import is_object
from liftnn._src.graph.merge import merge_all
from liftnn._src.graph.slots import Slot
from liftnn._src.graph.views import describe_difference, render_edge
from liftnn._src.graph.walk import Walk, walk_again
from liftnn._src.printing import call, mapping
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, an, format_path, key_of, list_paths
from liftnn._src.type_variables import Tree
from liftnn._src.variables import frames
from liftnn._src.variables.metadata_methods import adopt_metadata
from liftnn._src.variables.nested import left_over, mismatch
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State, as_state
from liftnn._src.variables.variable import Variable

X = TypeVar("X")


@boundary
class GraphDef(GraphSpec, Generic[Tree]):
    """The static part of a tree of modules: classes, attributes, sharing, cycles, static values and metadata.

    It is hashable, compared by content, and a JAX pytree without leaves. Use `split` to create one.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> state, graphdef = liftnn.split(model)
      >>> graphdef.merge(state)(jnp.ones((1, 2))).shape
      (1, 3)
    """

    __slots__ = ()

    def merge(self, *states: State) -> Tree:
        """Build new objects with this structure and the values of the States.

        Args:
          *states: Together they must hold every Variable and array leaf of the structure, and nothing else.

        Returns:
          The module, or tree of modules, that `split` was called with, as new objects.

        Raises:
          ArgumentTypeError: If an argument is not a State.
          StructureError: If a Variable is missing, unexpected or given twice; the message lists the paths.
        """
        by_path = _joined(self, states)
        by_slot = {slot: by_path[path] for path, slot in self.leaves.items()}
        leaves = [unwrap_raw(x) for x in map(by_slot.__getitem__, self.slots)]
        tree, merged = merge_all(self, leaves, frames.owner_now())
        for slot, x in by_slot.items():
            if isinstance(x, Variable) and slot.key is None:
                adopt_metadata(merged.objects[slot.node], x)
        return tree

    def apply(self, *states: State) -> Apply:
        """Return a pure function that merges, calls, and splits again.

        Args:
          *states: The States, as for `merge`.

        Returns:
          A callable: `graphdef.apply(state)(x)` calls the module, and `graphdef.apply(state).encode(x)` calls its
          method `encode`. Each call returns `(output, (state, graphdef))`.

        Raises:
          StructureError: When called, if the States do not fit.
        """
        return Apply(self, states)

    def diff(self, other: GraphSpec) -> str:
        """Describe the differences between two structures, one line per attribute path.

        Args:
          other: The structure to compare with.

        Returns:
          Lines such as `layers[2].rate: 0.1 -> 0.2`; the empty string if the two are equal.
        """
        return describe_difference(self, other)

    @property
    def type(self) -> Any:
        """The class of the module, or the tree structure if several were split."""
        return self.specs[self.edges[0]].type if self.treedef is None else self.treedef

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attribute names of the module, in order of assignment."""
        return self.specs[self.edges[0]].keys if self.treedef is None else ()

    def __repr__(self) -> str:
        if self.treedef is None:
            return render_edge(self, self.edges[0], set())
        entries = [(repr(i), render_edge(self, edge, set())) for i, edge in enumerate(self.edges)]
        return call("GraphDef", [("tree", repr(self.treedef)), ("leaves", mapping(entries))])


jax.tree_util.register_static(GraphDef)

_interned: weakref.WeakKeyDictionary[GraphDef, weakref.ref[GraphDef]] = weakref.WeakKeyDictionary()
"""One GraphDef of each content, while anyone holds it, so that derived data is computed once."""


def intern(graphdef: GraphDef) -> GraphDef:
    """Return the GraphDef of equal content that is already in use, or this one."""
    reference = _interned.get(graphdef)
    known = None if reference is None else reference()
    if known is None:
        known = graphdef
        _interned[graphdef] = weakref.ref(graphdef)
    return known


def _joined(graphdef: GraphDef, states: tuple[State, ...]) -> dict[Path, Any]:
    """Return the leaves of the States by path, after checking them against the structure."""
    leaves: dict[Path, Any] = {}
    for state in states:
        found = as_state("merge", state).flat()
        twice = leaves.keys() & found.keys()
        if twice:
            paths = [format_path(path) for path in leaves if path in twice]
            raise errors.StructureError(
                f"More than one State has a value for:\n{list_paths(paths)}",
                "Keep each path in one State only, or join the States with `|`: the last one wins.",
            )
        leaves.update(found)
    expected = graphdef.leaves.keys()
    if expected != leaves.keys():
        missing = [path for path in expected if path not in leaves]
        raise mismatch(
            "The States do not fit the GraphDef", missing, [p for p in leaves if p not in expected]
        )
    return leaves


@boundary
class Apply:
    """A GraphDef and its States, ready to be called; see `GraphDef.apply`.

    Args:
      graphdef: The structure.
      states: The values.
      names: The attributes on the path to the method to call.
    """

    def __init__(self, graphdef: GraphDef, states: tuple[State, ...], names: tuple[str, ...] = ()):
        self._graphdef = graphdef
        self._states = states
        self._names = names

    def __getattr__(self, name: str) -> Apply:
        if name.startswith("__"):
            raise AttributeError(name)
        return Apply(self._graphdef, self._states, (*self._names, name))

    def __getitem__(self, key: Any) -> Apply:
        return Apply(self._graphdef, self._states, (*self._names, key))

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, tuple[*tuple[State, ...], GraphDef]]:
        """Merge, call the module or its method, and split again."""
        tree = self._graphdef.merge(*self._states)
        method = tree
        for name in self._names:
            method = (
                getattr(method, name) if isinstance(name, str) and hasattr(method, name) else method[name]
            )
        out = method(*args, **kwargs)
        return out, split(tree)


class WalkedTree(NamedTuple):
    """A flattened module, or tree of modules.

    Args:
      graphdef: Its static part.
      objects: The objects by number.
      by_slot: The array leaves by slot.
    """

    graphdef: GraphDef[Any]
    objects: list[Any]
    by_slot: dict[Slot, Any]

    def leaf(self, slot: Slot) -> Any:
        """Return the Variable or array leaf at a slot."""
        return self.by_slot[slot] if slot in self.by_slot else frames.resolve(self.objects[slot.node])

    def leaves(self) -> Iterator[tuple[Path, Any]]:
        """Return pairs of path and Variable or array leaf, in depth-first order."""
        return ((path, self.leaf(slot)) for path, slot in self.graphdef.leaves.items())


def walk_tree(tree: Any, kind: Callable[..., Walk] = Walk) -> WalkedTree:
    """Flatten a module, or a tree of modules.

    Args:
      tree: The module or tree.
      kind: The class of the walk. The default is `Walk`.

    Returns:
      Its static part, its objects and its array leaves.

    Raises:
      ArgumentTypeError: If it is a class of modules or Variables.
      StructureError: If something in it cannot be part of a module.
    """
    if issubclass(type(tree), type) and hasattr(tree, "__graph_node__"):
        raise errors.ArgumentTypeError(
            f"{tree.__qualname__} is a class, not a module.",
            f"Create the module: `{tree.__qualname__}(...)`.",
        )
    return walk_again(lambda sharing: _walk(tree, kind(sharing=sharing)))


def _walk(tree: Any, walk: Walk) -> WalkedTree:
    if is_object(tree):
        edge, _ = walk.visit(tree)
        treedef, edges, arrays, paths = None, (edge,), [], LeafPaths()
    else:
        entries, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_object)
        visited = [walk.visit(leaf, tuple(key_of(e) for e in path)) for path, leaf in entries]
        edges, arrays = tuple([e for e, _ in visited]), [a for _, found in visited for a in found]
        paths = LeafPaths(path for path, _ in entries)
    graphdef = intern(GraphDef(treedef, edges, walk.finished_specs(), tuple(walk.frozen), paths))
    arrays += [a for found in walk.arrays for a in found]
    slots = graphdef.slots[len(graphdef.slots) - len(arrays) :]
    return WalkedTree(graphdef, walk.objects, dict(zip(slots, arrays, strict=True)))


@boundary
def split(tree: X, /, *filters: Filter) -> tuple[*tuple[State, ...], GraphDef[X]]:
    """Divide a tree of modules into its dynamic part and its static part.

    Args:
      tree: A module, or any pytree with modules in it.
      *filters: One State is returned for each filter, with the Variables that match it first. Without filters, one
        State has all Variables.

    Returns:
      `(*states, graphdef)`. The States hold copies of the Variables; a shared Variable appears once, at its first path.

    Raises:
      FilterError: If a Variable matches none of the filters; the message lists the paths. If a string that is the name
        of an attribute selects nothing, since a string means a tag.
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> import liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> params, rest, graphdef = liftnn.split(model, liftnn.Param, ...)
      >>> list(params), list(rest)
      (['kernel', 'bias'], [])
    """
    walked = walk_tree(tree)
    predicates = to_predicates(filters or (...,))
    parts: list[dict[Any, Any]] = [{} for _ in range(len(predicates) + 1)]
    leaves = list(walked.leaves())
    check_tags(predicates, leaves)
    for path, x in leaves:
        part = first_match(predicates, path, x) if filters else 0
        parts[part][path] = x.copy() if isinstance(x, Variable) else x
    if parts[-1]:
        raise left_over(format_path(path) for path in parts[-1])
    return (*(State.from_flat(p) for p in parts[:-1]), walked.graphdef)


@overload
def state(tree: Any, filter: Filter = ..., /) -> State: ...


@overload
def state(tree: Any, first: Filter, second: Filter, /, *others: Filter) -> tuple[State, ...]: ...


@boundary
def state(tree: Any, /, *filters: Filter) -> State | tuple[State, ...]:
    """Return copies of the Variables of a tree of modules that match.

    Args:
      tree: A module, or any pytree with modules in it.
      *filters: One or more filters; the first match wins, and Variables that match none are left out. Without filters,
        everything matches.

    Returns:
      A State for at most one filter, a tuple of States for several.

    Raises:
      FilterError: If an argument is not a filter, or if a string that is the name of an attribute selects nothing.

    Example:
      >>> import liftnn
      >>> liftnn.state(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), liftnn.Param)["bias"].shape
      (3,)
    """
    predicates = to_predicates(filters or (...,))
    parts: list[dict[Any, Any]] = [{} for _ in predicates]
    leaves = list(walk_tree(tree).leaves())
    check_tags(predicates, leaves)
    for path, x in leaves:
        part = first_match(predicates, path, x)
        if part >= 0:
            parts[part][path] = x.copy() if isinstance(x, Variable) else x
    states = tuple(State.from_flat(p) for p in parts)
    return states[0] if len(states) == 1 else states


@boundary
def merge(graphdef: GraphDef[Tree], /, *states: State) -> Tree:
    """Build new objects from a structure and the values of States; the inverse of `split`.

    `split` returns the States first; `merge` takes them last: structure first, then values.

    Args:
      graphdef: The structure.
      *states: Together they must hold every Variable and array leaf of the structure, and nothing else.

    Returns:
      The module, or tree of modules, that `split` was called with, as new objects.

    Raises:
      ArgumentTypeError: If the first argument is not a GraphDef, or another one is not a State.
      StructureError: If a Variable is missing, unexpected or given twice; the message lists the paths.

    Example:
      >>> import liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> state, graphdef = liftnn.split(model)
      >>> type(liftnn.merge(graphdef, state)).__name__
      'Linear'
    """
    if not isinstance(graphdef, GraphDef):
        raise errors.ArgumentTypeError(
            f"merge takes a GraphDef as its first argument, not {an(type(graphdef))}.",
            "Write `*states, graphdef = split(model)` and `merge(graphdef, *states)`: `split` returns the GraphDef "
            "last.",
        )
    return graphdef.merge(*states)
