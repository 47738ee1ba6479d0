"""Functions on trees of modules as Flax NNX has them: clone, map, find duplicates, set metadata, flatten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from liftnn import errors
from liftnn._src.compat.flat_state import FlatState, sort_leaves
from liftnn._src.compat.graph_state import GraphState
from liftnn._src.compat.modes import accept_modes, check_modes, check_variable_kinds
from liftnn._src.compat.splitting import GraphDef, as_states, graphdef_of, merge, split
from liftnn._src.filters import Filter, to_predicate
from liftnn._src.graph.description import find_all_paths
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.modules import copies
from liftnn._src.modules.module import Module
from liftnn._src.modules.recursive_map import recursive_map
from liftnn._src.modules.update import set_values
from liftnn._src.modules.verbs import find_variables
from liftnn._src.optim.fixed_entries import FixedDict, FixedState
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable


@boundary
def clone(node: Any, variables: bool = True, *, arrays: bool = False, graph: bool | None = None) -> Any:
    """Return a copy of a tree of modules, with the same sharing and cycles.

    Args:
      node: A module, or any pytree with modules in it.
      variables: Whether the copy has Variables of its own. The default is True; with False it shares them.
      arrays: Whether the arrays are copied; they always are, unless the Variables are shared.
      graph: Accepted without effect.

    Returns:
      The copy.

    Raises:
      ArgumentError: If `arrays` is True and `variables` is False.

    Example:
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.clone(model).kernel is model.kernel, nnx.clone(model, variables=False).kernel is model.kernel
      (False, True)
    """
    check_modes(variables=variables, arrays=arrays, graph=graph)
    if variables:
        return copies.clone(node)
    if arrays:
        raise errors.ArgumentError(
            "nnx.clone cannot copy the arrays of Variables that it shares.",
            "Pass variables=True, or leave out arrays=True.",
        )
    return merge(*split(node))


@boundary
def update(node: Any, state: Any, /, *states: Any) -> None:
    """Set values and metadata of Variables from States, in place; see `liftnn.update`. A dtype may change.

    Args:
      node: A module, a Variable, or any pytree with modules in it.
      state: A State, nested dicts, or a FlatState; for a Variable also a Variable or a value.
      *states: More of them.

    Raises:
      StructureError: If a path is not in the tree, or an array has another shape than the one that it would replace;
        the message lists the paths. Nothing is changed then.
      TraceContextError: If a Variable belongs to another trace. Nothing is changed then.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> w = nnx.Param(jnp.zeros(2))
      >>> nnx.update(w, nnx.Param(jnp.ones(2)))
      >>> w.value.tolist()
      [1.0, 1.0]
    """
    set_values(node, as_states((state, *states)), same_dtypes=False)


@accept_modes
def map(  # noqa: A001  # its name in Flax
    f: Callable[[Path, Any], Any], node: Any, /, *, recreate_variables: bool = True
) -> Any:
    """Return a copy of a tree of modules, or of a State, with the results of a function of each Variable.

    Args:
      f: Called with the path tuple and the Variable or array; returns a Variable, or a value.
      node: A module, a State, or any pytree with modules in it.
      recreate_variables: Whether a value in place of a Variable becomes a Variable. The default is True; with False the
        copy holds the value itself.

    Returns:
      The copy. Variables that `f` returns unchanged are shared with `node`.

    Raises:
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.map(lambda path, x: x.replace(x + 1), model).bias.value.tolist()
      [1.0, 1.0, 1.0]
    """
    check_modes(recreate_variables=recreate_variables)
    walked = walk_tree(node)
    leaves = {path: f(path, x) for path, x in sort_leaves(walked.leaves())}
    return merge(walked.graphdef, State.from_flat(leaves), recreate_variables=recreate_variables)


@boundary
def find_duplicates(node: Any, /, *, only: Filter = ...) -> list[list[Path]]:
    """Return the paths of each module and Variable that a tree of modules reaches by more than one path.

    Args:
      node: A module, or any pytree with modules in it.
      only: A filter of modules and Variables. The default means all.

    Returns:
      One list of paths for each shared object.

    Raises:
      FilterError: If `only` is not a filter.

    Example:
      >>> from liftnn.compat import nnx
      >>> model = nnx.Module()
      >>> model.a = model.b = nnx.Module()
      >>> nnx.find_duplicates(model)
      [[('a',), ('b',)]]
    """
    predicate = to_predicate(only)
    walked = walk_tree(node)
    shared = [(walked.objects[n], paths) for n, paths in find_all_paths(walked.graphdef).items()]
    return [
        paths
        for x, paths in shared
        if len(paths) > 1 and hasattr(type(x), "__graph_node__") and any(predicate(p, x) for p in paths[1:])
    ]


def as_pure(tree: Any) -> Any:
    """Return a pytree with the values of Variables in their place.

    Args:
      tree: A State, a module, or any pytree with them or Variables in it.

    Returns:
      The pytree, in which modules are copies, and the trees of an optimizer's state are plain States and dicts, as
      optax takes them; hooks do not run.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.as_pure(nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))).bias.tolist()
      [0.0, 0.0, 0.0]
    """

    def pure(x: Any) -> Any:
        if isinstance(x, Module):
            return recursive_map(lambda _, y: as_pure(y) if isinstance(y, Variable) else y, x)
        if isinstance(x, (FixedState, FixedDict)):
            return as_pure(State(x) if isinstance(x, FixedState) else dict(x))
        return as_pure(x.raw_value) if isinstance(x, Variable) else x

    return jax.tree.map(
        pure, tree, is_leaf=lambda x: isinstance(x, (Variable, Module, FixedState, FixedDict))
    )


@boundary
def set_metadata(node: Any, /, *, only: Filter = Variable, **metadata: Any) -> None:
    """Set metadata of the Variables of a tree of modules, in place.

    Args:
      node: A module, or any pytree with modules in it.
      only: A filter of the Variables. The default means all.
      **metadata: The new values by name.

    Raises:
      FilterError: If `only` is not a filter.
      TraceContextError: If a Variable belongs to another trace.

    Example:
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.set_metadata(model, frozen=True, only=nnx.Param)
      >>> model.kernel.frozen
      True
    """
    for x in find_variables(node, only).values():
        x.set_metadata(**metadata)


@boundary
def with_vars(
    node: Any,
    /,
    *,
    hijax: bool | None = None,
    ref: bool | None = None,
    mutable: bool | None = None,
    only: Filter = ...,
    allow_duplicates: bool = False,
) -> Any:
    """Return a copy of a tree of modules whose Variables are of the requested kind, as they always are.

    Args:
      node: A module, or any pytree with modules in it.
      hijax: False or None.
      ref: False or None.
      mutable: True or None.
      only: A filter of the Variables; without effect.
      allow_duplicates: Accepted without effect: sharing is kept.

    Returns:
      The copy, with the Variables of `node`.

    Raises:
      ArgumentError: If `hijax` or `ref` is True, or `mutable` is False.

    Example:
      >>> from liftnn.compat import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> nnx.with_vars(model, ref=False).kernel is model.kernel
      True
    """
    to_predicate(only)
    check_modes(allow_duplicates=allow_duplicates)
    check_variable_kinds(hijax=hijax, ref=ref)
    if mutable is False:
        raise errors.ArgumentError(
            "liftnn has no immutable Variables.",
            "Leave out mutable=False, or keep the value of the Variable.",
        )
    return merge(*split(node))


@accept_modes
def unpack(node: Any, *filters: Filter) -> Any:
    """Return States that know the structure of a tree of modules, so that `merge` needs nothing else.

    Args:
      node: A module, or any pytree with modules in it.
      *filters: One GraphState is returned for each filter. Without filters, one has all Variables.

    Returns:
      A GraphState for at most one filter, a tuple of them for several.

    Raises:
      FilterError: If a Variable matches none of the filters; the message lists the paths.

    Example:
      >>> from liftnn.compat import nnx
      >>> params, stats = nnx.unpack(nnx.BatchNorm(2, rngs=nnx.Rngs(0)), nnx.Param, nnx.BatchStat)
      >>> type(nnx.merge(params, stats)).__name__
      'BatchNorm'
    """
    structure, *states = split(node, *filters)
    found = tuple([GraphState(structure, x) for x in states])
    return found[0] if len(found) == 1 else found


@accept_modes
def flatten(node: Any, /, *, with_paths: bool = True) -> tuple[GraphDef[Any], Any]:
    """Divide a tree of modules into its static part and a flat sequence of its Variables.

    Args:
      node: A module, or any pytree with modules in it.
      with_paths: Whether the result has the paths. The default is True.

    Returns:
      The GraphDef, and a FlatState, or a list of the Variables and arrays in the same order.

    Raises:
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> from liftnn.compat import nnx
      >>> graphdef, flat = nnx.flatten(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
      >>> flat.paths
      (('bias',), ('kernel',))
    """
    walked = walk_tree(node)
    flat = FlatState(walked.leaves(), sort=True)
    return graphdef_of(walked), flat if with_paths else flat.leaves


@boundary
def unflatten(
    graphdef: Any, state: Any, /, *, copy_variables: bool = False, recreate_variables: bool = True
) -> Any:
    """Build new modules from a structure and a State, FlatState, or list of leaves; the inverse of `flatten`.

    Args:
      graphdef: The structure.
      state: The Variables and arrays.
      copy_variables: Whether the modules get copies of the Variables. The default is False.
      recreate_variables: Whether an array in place of a Variable becomes a Variable. The default is True.

    Returns:
      The module, or tree of modules.

    Raises:
      ArgumentTypeError: If the first argument is not a GraphDef.
      StructureError: If a Variable is missing or unexpected.

    Example:
      >>> from liftnn.compat import nnx
      >>> type(nnx.unflatten(*nnx.flatten(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))).__name__
      'Linear'
    """
    return merge(graphdef, state, copy=copy_variables, recreate_variables=recreate_variables)
