"""Flatten the arguments of a call and the modules that its functions capture into structure, objects and arrays."""

from __future__ import annotations

import collections
import functools
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any, NamedTuple

import jax

from liftnn._src.captures.guards import NO_GUARDS, Guards
from liftnn._src.captures.pinned import pin
from liftnn._src.captures.plain_objects import note_content
from liftnn._src.captures.search import find_captured, find_missed
from liftnn._src.captures.shape import CapturedShape
from liftnn._src.captures.steps import GlobalsOf
from liftnn._src.graph.checks import is_atom
from liftnn._src.graph.description import GraphSpec, LeafPaths, reach
from liftnn._src.graph.kinds import is_object
from liftnn._src.graph.walk import ArgumentWalk, Sharing, walk_again
from liftnn._src.lifting.contract import CAPTURED, name_argument
from liftnn._src.static_values.static import Static, is_foreign
from liftnn._src.trees import LEAF, Path, is_argument_array, is_array, key_of, module_of, static_parts
from liftnn._src.variables import frames
from liftnn._src.variables.variable import Variable


class StaticArgument:
    """A static argument: part of the structure and the cache key, not traced.

    Args:
      value: The argument.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value


def mark_static(tree: Any) -> Any:
    """Mark the leaves of an argument as static that are neither arrays nor objects."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_object)
    marked = [x if is_object(x) or is_array(x) else StaticArgument(x) for x in leaves]
    return tree if all(map(is_, marked, leaves)) else treedef.unflatten(marked)


class Uncopied(Static):
    """The edge of an argument that the function gets as it is, as if it captured it.

    The other parts of a module can be arguments with another axis then, here or in an enclosing call: each part is
    resolved when it is used, and only those that are arguments raise an error.

    Args:
      position: Its position among such arguments of the call.
    """

    __slots__ = ("position",)

    def __init__(self, position: int):
        super().__init__(position, (Uncopied, position))
        self.position = position

    @property
    def value(self) -> Uncopied:
        """What stands for the argument in the tree of arguments."""
        return self


class Flat(NamedTuple):
    """The flattened arguments and captured modules of a call.

    Args:
      graph: The structure.
      objects: The live objects by number.
      arrays: The array leaves.
      guards: While they hold, the next call captures the same modules.
      unreached: The objects to guard that no search has reached.
      uncopied: The arguments that the function gets as they are; see `Uncopied`.
    """

    graph: GraphSpec
    objects: list[Any]
    arrays: list[Any]
    guards: Guards
    unreached: Sequence[Any] = ()
    uncopied: Sequence[Any] = ()


LeafEdge = Callable[[Any, Path, list[Any]], Any]


def flatten_call(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    leaf_edge: LeafEdge,
    *,
    stored: tuple[Any, ...] | None = None,
    functions: Sequence[Any] | None = None,
    used: Sequence[Any] = (),
    to_guard: Sequence[Any] = (),
    names: Sequence[str] = (),
    is_uncopied: Callable[[Any, Path], bool] | None = None,
) -> Flat:
    """Flatten the arguments of a call and the modules that its functions capture.

    Args:
      args: The positional arguments.
      kwargs: The keyword arguments.
      leaf_edge: Returns the edge of a leaf that is neither an object nor an array. Called with the leaf, its path, and
        the list of arrays found so far, to which it may append.
      stored: The arguments stored in a partial. The default, None, means that there is no partial.
      functions: The functions that may capture modules. The default, None, means that no function is called, so
        captured modules are not searched.
      used: Captured objects that the search missed and that were detected when they were used.
      to_guard: Those among them to look for everywhere, so that the steps to them are guarded. The default is none.
      names: Names of the positional arguments for messages. The default, none, is `args[0]` and so on.
      is_uncopied: Called with an object among the arguments, and its path; returns whether the function gets it as it
        is, see `Uncopied`. The default, None, means never.

    Returns:
      The flattened arguments.
    """

    def flatten(sharing: Sharing) -> Flat:
        flat = _Flattening(leaf_edge, names, sharing, is_uncopied)
        for tree in (args, kwargs) if stored is None else (args, kwargs, stored):
            flat.add(tree)
        if functions is None:
            return Flat(*flat.finish(), NO_GUARDS)
        captured = _walk_captured(flat.walk, functions, used, to_guard, flat.uncopied)
        if captured.edges:
            if stored is None:
                flat.add(((), {}))
            flat.add_captured(captured.edges, captured.shape)
        return Flat(*flat.finish(), captured.guards, captured.unreached, list(flat.uncopied.values()))

    return walk_again(flatten)


class _Flattening:
    """The state of a flattening: trees are added one after the other.

    Args:
      leaf_edge: See `flatten_call`.
      names: See `flatten_call`.
      sharing: The functions and weak references that are nodes; see `walk_again`.
      is_uncopied: See `flatten_call`.
    """

    def __init__(
        self,
        leaf_edge: LeafEdge,
        names: Sequence[str],
        sharing: Sharing,
        is_uncopied: Callable[[Any, Path], bool] | None,
    ):
        self.walk = ArgumentWalk(sharing)
        self.uncopied: dict[str, Any] = {}
        """The arguments that the function gets as they are, by name."""
        self._is_uncopied = is_uncopied
        self._leaf_edge = leaf_edge
        self._names = names
        self._edges: list[Any] = []
        self._arrays: list[Any] = []
        self._paths: list[Path] = []
        self._treedefs: list[Any] = []

    def add(self, tree: Any) -> None:
        """Flatten the next tree of arguments."""
        position = len(self._treedefs)
        entries, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_leaf)
        for path, leaf in entries:
            if type(leaf) is StaticArgument:
                self._edges.append(Static(leaf.value))
            elif (
                is_object(leaf)
                and self._is_uncopied
                and self._is_uncopied(leaf, (position, *map(key_of, path)))
            ):
                self._edges.append(Uncopied(len(self.uncopied)))
                self.uncopied[name_argument((position, *map(key_of, path)), self._names)] = leaf
            elif is_object(leaf) or is_array(leaf):
                self.walk.root = name_argument((position, *map(key_of, path[:1])), self._names)
                edge, found = self.walk.visit(leaf, tuple(map(key_of, path[1:])))
                self._edges.append(edge)
                self._arrays += found
            else:
                self._edges.append(self._leaf_edge(leaf, (position, *map(key_of, path)), self._arrays))
        self._paths += [(position, *path) for path, _ in entries]
        self._treedefs.append(treedef)

    def add_captured(self, roots: dict[str, Any], shape: CapturedShape) -> None:
        """Add the edges of captured modules, their constants (array leaves), and their containers."""
        captured = list(roots.values())
        self._edges += [*captured, Static(pin(self.walk, captured)), Static(shape)]
        self._paths += [*((CAPTURED, name) for name in roots), (CAPTURED + 1,), (CAPTURED + 2,)]
        treedef = jax.tree.structure(collections.OrderedDict(dict.fromkeys(roots, 0)))
        self._treedefs += [treedef, LEAF, LEAF]

    def finish(self) -> tuple[GraphSpec, list[Any], list[Any]]:
        """Return the structure, the objects by number, and the array leaves."""
        walk = self.walk
        treedef, paths = jax.tree_util.treedef_tuple(self._treedefs), LeafPaths(self._paths)
        graph = GraphSpec(treedef, tuple(self._edges), walk.finished_specs(), tuple(walk.frozen), paths)
        return graph, walk.objects, self._arrays + [a for found in walk.arrays for a in found]


class _Walked(NamedTuple):
    """The captured modules of a call.

    Args:
      edges: The edge of each by its name.
      guards: While they hold, another search finds the same.
      shape: The shape of the containers that lead to them.
      unreached: The objects to guard that no search has reached.
    """

    edges: dict[str, Any]
    guards: Guards
    shape: CapturedShape
    unreached: list[Any]


def _walk_captured(
    walk: ArgumentWalk,
    functions: Sequence[Any],
    used: Sequence[Any],
    to_guard: Sequence[Any],
    uncopied: dict[str, Any],
) -> _Walked:
    """Find and walk captured modules, including those captured by functions that a module holds."""
    edges: dict[str, Any] = {}
    walked: dict[int, str] = {}

    def walk_roots(roots: dict[str, Any]) -> None:
        for name, x in roots.items():
            if id(x) in walked:
                continue
            if hasattr(type(x), "__graph_node__") and frames.frames_up_to(x) is None:
                continue  # leaked from a transform that has returned
            while name in edges:
                name += "'"
            walked[id(x)] = name
            walk.root = name_argument((CAPTURED, name))
            edges[name], _ = walk.visit(x)

    walk.is_captured = True
    walk_roots(uncopied)
    searched, guards, shape, keyed = -1, NO_GUARDS, CapturedShape(), []
    parts: list[Any] = []
    while searched != len(keyed) + len(parts):
        searched = len(keyed) + len(parts)
        roots, guards, shape, _ = find_captured([*functions, *parts], keyed, walk.numbers)
        walk_roots(roots)
        parts = list(filter(_may_capture, walk.static_parts()))
        keyed = [x for x, _ in walk._statics.values() if _may_capture(x)]
        keyed += map(GlobalsOf, walk.functions)
        factories = [x.default_factory for x in walk.objects if isinstance(x, collections.defaultdict)]
        keyed += filter(_may_capture, factories)

    def not_captured(objects: Sequence[Any]) -> list[Any]:
        if not objects:
            return []
        reached = reach(walk.finished_specs(), edges.values())
        return [x for x in objects if walk.numbers.get(id(frames.lookup(x, True))) not in reached]

    missed = not_captured(to_guard)
    if missed:
        static_values = (x for x, _ in walk._statics.values())
        classes = dict.fromkeys(map(type, walk.objects))  # their methods may use globals
        starts = [*functions, *parts, *keyed, *static_values, *classes]
        roots, more, between, _ = find_missed(starts, missed)
        guards, shape = guards + more, shape + between
        walk_roots(roots)
    unreached: list[Any] = []
    rest = sorted(used, key=lambda x: isinstance(x, Variable))  # modules first: a Variable may be in one
    while rest := not_captured(rest):
        first, *rest = rest
        unreached.append(first)
        walk_roots({f"captured[{len(edges)}]": first})
    unreached += not_captured(missed)
    objects = [(x, static) for x, static in walk._statics.values() if _may_capture(x)]
    guards = guards + note_content(walk, objects, [*functions, *keyed])
    return _Walked(edges, guards, shape, unreached)


def _may_capture(x: Any) -> bool:
    """Return whether a static value of a module is user code, which may capture modules or change in place."""
    cls = type(x)
    if cls is types.MethodType or cls is functools.partial or cls is weakref.ref:
        return True
    if cls is types.FunctionType:
        return bool(x.__closure__) or not is_foreign(x.__module__)
    if hasattr(cls, "__carried_functions__"):
        return any(map(_may_capture, x.__carried_functions__()))
    if issubclass(cls, tuple):
        return any(map(_may_capture, tuple.__iter__(x)))
    if issubclass(cls, frozenset):
        return any(map(_may_capture, frozenset.__iter__(x)))
    if cls is dict or cls is list:  # in the static part of a pytree
        return any(map(_may_capture, x.values() if cls is dict else x))
    return not is_foreign(module_of(cls)) and not issubclass(cls, type)


def _is_leaf(x: Any) -> bool:
    return type(x) is StaticArgument or is_object(x)


def functions_in(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the functions and the static values in arguments, also in pytrees, which may capture modules too."""
    arguments = (*args, *kwargs.values())
    static = [x.value for x in arguments if type(x) is StaticArgument]
    functions = (x for x in arguments if callable(x) and not is_object(x))
    trees = (jax.tree.structure(x, is_leaf=_is_leaf) for x in arguments if not is_argument_array(x))
    parts = (part for tree in trees for part in static_parts(tree))
    return [*static, *functions, *filter(_may_capture, parts)]


def functions_stored(stored: tuple[tuple[Any, ...], dict[str, Any]] | None) -> list[Any]:
    """Return the functions and plain objects in the arguments stored in a partial, which may capture modules too."""
    leaves = jax.tree.leaves(stored, is_leaf=is_object)
    return [x for x in leaves if not is_object(x) and not is_atom(x)]
