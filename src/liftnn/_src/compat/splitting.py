"""Split, merge and their kin in the order of Flax NNX: the GraphDef first, and States of the module's own Variables."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

from liftnn import errors
from liftnn._src.compat.flat_state import FlatState, sort_leaves
from liftnn._src.compat.graph_state import GraphState, common_graphdef
from liftnn._src.compat.modes import accept_modes, check_modes
from liftnn._src.filters import Filter, first_match, to_predicates
from liftnn._src.graph import graphdef as liftnn_graphdef
from liftnn._src.graph.graphdef import WalkedTree, walk_tree
from liftnn._src.graph.kinds import VARIABLE
from liftnn._src.graph.merge import merge_all
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, an, format_path
from liftnn._src.variables import frames
from liftnn._src.variables.nested import left_over
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

Tree = TypeVar("Tree")


class GraphDef(liftnn_graphdef.GraphDef[Tree]):
    """The static part of a tree of modules; `apply` returns `(output, (graphdef, state))`.

    It is hashable, compared by content, and a JAX pytree without leaves. Use `split` to create one.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> graphdef, state = nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> y, (graphdef, state) = graphdef.apply(state)(jnp.ones((1, 2)))
      >>> y.shape
      (1, 3)
    """

    __slots__ = ()

    def apply(self, *states: Any) -> Call:  # pyright: ignore[reportIncompatibleMethodOverride]  # another order
        """Return a proxy that merges, calls, and splits again.

        Args:
          *states: The States, as for `merge`.

        Returns:
          A callable: `graphdef.apply(state)(x)` calls the module, and `graphdef.apply(state).encode(x)` its method
          `encode`. Each call returns `(output, (graphdef, state))`.
        """
        return Call(self, states)


jax.tree_util.register_static(GraphDef)

_graphdefs: weakref.WeakKeyDictionary[Any, GraphDef[Any]] = weakref.WeakKeyDictionary()
"""The GraphDef of this file for each of liftnn's that is in use."""


def graphdef_of(walked: WalkedTree) -> GraphDef[Any]:
    """Return the GraphDef of a flattened tree.

    Args:
      walked: The tree.

    Returns:
      The GraphDef, one object for each content that is in use.
    """
    found = _graphdefs.get(walked.graphdef)
    if found is None:
        x = walked.graphdef
        found = _graphdefs[x] = GraphDef(x.treedef, x.edges, x.specs, x.frozen, x.paths)
    return found


@boundary
class Call:
    """A GraphDef and its States, ready to be called; see `GraphDef.apply` and `call`.

    Args:
      graphdef: The structure.
      states: The values.
      access: Functions that lead from the module to the method to call.
    """

    def __init__(self, graphdef: Any, states: tuple[Any, ...], access: tuple[Callable[[Any], Any], ...] = ()):
        self._graphdef = graphdef
        self._states = states
        self._access = access

    def __getattr__(self, name: str) -> Call:
        if name.startswith("__"):
            raise AttributeError(name)
        return Call(self._graphdef, self._states, (*self._access, lambda x: getattr(x, name)))

    def __getitem__(self, key: Any) -> Call:
        return Call(self._graphdef, self._states, (*self._access, lambda x: x[key]))

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, tuple[Any, Any]]:
        """Merge, call the module or its method, and split again."""
        tree = merge(self._graphdef, *self._states)
        method = functools.reduce(lambda x, f: f(x), self._access, tree)
        out = method(*args, **kwargs)
        return out, split(tree)


def call(graphdef_state: tuple[Any, Any], /) -> Call:
    """Return a proxy of a module that is given as GraphDef and State; calls return the output and the new pair.

    Args:
      graphdef_state: A pair of GraphDef and State, such as `nnx.split(model)`.

    Returns:
      The proxy: `nnx.call(pair)(x)` calls the module, `nnx.call(pair).encode(x)` its method, `nnx.call(pair)["a"](x)`
      an entry of a dict of modules. Each call returns `(output, (graphdef, state))`.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> y, pair = nnx.call(nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))(jnp.ones((1, 2)))
      >>> y.shape
      (1, 3)
    """
    graphdef, *states = graphdef_state
    return Call(graphdef, tuple(states))


def _to_state(leaves: Mapping[Path, Any]) -> Any:
    """Return a State of leaves by path; the leaf itself if the tree is a single Variable or array."""
    return leaves[()] if list(leaves) == [()] else State.from_flat(sort_leaves(leaves))


def _group(walked: WalkedTree, filters: tuple[Filter, ...]) -> list[dict[Path, Any]]:
    """Return the live Variables and the array leaves by path, for each filter, and those that match none."""
    predicates = to_predicates(filters or (...,))
    parts: list[dict[Path, Any]] = [{} for _ in range(len(predicates) + 1)]
    for path, x in walked.leaves():
        parts[first_match(predicates, path, x) if filters else 0][path] = x
    return parts


@accept_modes
def split(node: Any, *filters: Filter) -> tuple[Any, ...]:
    """Divide a tree of modules into its static part and its dynamic part.

    Args:
      node: A module, or any pytree with modules in it.
      *filters: One State is returned for each filter, with the Variables that match it first. Without filters, one
        State has all Variables.

    Returns:
      `(graphdef, *states)`. The States hold the Variables of the modules themselves.

    Raises:
      FilterError: If a Variable matches none of the filters; the message lists the paths.
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> from liftnn.compat import nnx
      >>> graphdef, params, rest = nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param, ...)
      >>> list(params), list(rest)
      (['bias', 'kernel'], [])
    """
    walked = walk_tree(node)
    *parts, rest = _group(walked, filters)
    if rest:
        raise left_over(map(format_path, rest))
    return (graphdef_of(walked), *map(_to_state, parts))


@accept_modes
def state(node: Any, *filters: Filter) -> Any:
    """Return the Variables of a tree of modules that match: the Variables themselves, so writes change the modules.

    Args:
      node: A module, or any pytree with modules in it.
      *filters: One or more filters; the first match wins, and Variables that match none are left out. Without filters,
        everything matches.

    Returns:
      A State for at most one filter, a tuple of States for several.

    Raises:
      FilterError: If an argument is not a filter.

    Example:
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.state(model)["bias"][...] = 5.0
      >>> model.bias.value.tolist()
      [5.0, 5.0, 5.0]
    """
    parts = [_to_state(part) for part in _group(walk_tree(node), filters)[:-1]]
    return parts[0] if len(parts) == 1 else tuple(parts)


variables = state


@accept_modes
def graphdef(node: Any, /) -> GraphDef[Any]:
    """Return the static part of a tree of modules.

    Args:
      node: A module, or any pytree with modules in it.

    Returns:
      The GraphDef.

    Raises:
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.graphdef(model) == nnx.split(model)[0]
      True
    """
    return graphdef_of(walk_tree(node))


def as_states(states: tuple[Any, ...]) -> list[Any]:
    """Return States in place of FlatStates and single leaves.

    Args:
      states: States, mappings, FlatStates, or the Variable or value of a tree that is a single Variable.

    Returns:
      A State or mapping for each.
    """

    def convert(x: Any) -> Any:
        if isinstance(x, FlatState):
            return x.to_nested_state()
        return x if isinstance(x, Mapping) else State.from_flat({(): x})

    return [convert(x) for x in states]


def _with_paths(graphdef: liftnn_graphdef.GraphDef[Any], states: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return States; a single list has leaves in the order of `jax.tree.leaves` of a State, which get their paths."""
    if not any(isinstance(x, list) for x in states):
        return states
    if len(states) != 1:
        raise errors.ArgumentTypeError(
            "nnx.merge got a list of leaves and other States.",
            "A list has all Variables and arrays: write `nnx.merge(graphdef, leaves)`, or pass States.",
        )
    leaves: list[Any] = states[0]
    paths = [path for path, _ in sort_leaves(graphdef.leaves)]
    if len(leaves) != len(paths):
        raise errors.StructureError(
            f"The structure has {len(paths)} Variables and arrays, and the list {len(leaves)}.",
            "Pass all leaves of the State, in the order of `jax.tree.leaves`.",
        )
    return (State.from_flat(zip(paths, leaves, strict=True)),)


@boundary
def merge(graphdef: Any, /, *states: Any, copy: bool = False, recreate_variables: bool = True) -> Any:
    """Build new modules from a structure and States; the inverse of `split`.

    Args:
      graphdef: The structure, or the first of several values of `unpack`.
      *states: Together they must hold every Variable and array leaf of the structure, and nothing else. A single list
        holds them without paths, in the order of `jax.tree.leaves` of the State.
      copy: Whether the modules get copies of the Variables in the States. The default is False: the modules hold the
        Variables themselves.
      recreate_variables: Whether an array in place of a Variable becomes a Variable. The default is True; with False
        the modules hold the array itself.

    Returns:
      The module, or tree of modules, that `split` was called with, as new objects.

    Raises:
      ArgumentTypeError: If the first argument is not a GraphDef, there is no State, or a list is not the only one.
      StructureError: If a Variable is missing, unexpected or given twice; the message lists the paths.

    Example:
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.merge(*nnx.split(model)).kernel is model.kernel
      True
    """
    check_modes(copy=copy, recreate_variables=recreate_variables)
    if isinstance(graphdef, GraphState):
        states = (graphdef, *states)
        graphdef = common_graphdef(states)
    if not isinstance(graphdef, liftnn_graphdef.GraphDef):
        raise errors.ArgumentTypeError(
            f"nnx.merge takes a GraphDef as its first argument, not {an(type(graphdef))}.",
            "Write `graphdef, *states = nnx.split(model)` and `nnx.merge(graphdef, *states)`.",
        )
    if not states:
        raise errors.ArgumentTypeError(
            "nnx.merge takes at least one State after the GraphDef.", "Write `nnx.merge(graphdef, state)`."
        )
    structure: liftnn_graphdef.GraphDef[Any] = graphdef
    found = as_states(_with_paths(structure, states))
    if copy:
        return liftnn_graphdef.GraphDef.merge(structure, *found)
    by_path = liftnn_graphdef._joined(structure, tuple(found))
    by_slot = {slot: by_path[path] for path, slot in structure.leaves.items()}
    shared = {
        slot.node: x
        for slot, x in by_slot.items()
        if slot.node >= 0
        and structure.specs[slot.node].kind is VARIABLE
        and slot.key is None
        and (x._owner is not frames.COPIED if isinstance(x, Variable) else not recreate_variables)
    }
    leaves = [unwrap_raw(by_slot[slot]) for slot in structure.slots]
    return merge_all(structure, leaves, frames.owner_now(), shared)[0]
