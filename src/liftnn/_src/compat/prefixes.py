"""`prefix`: the axes or other values of the Variables of modules, computed by path or by filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from liftnn import errors
from liftnn._src.compat.modes import accept_modes
from liftnn._src.filters import Filter, first_match, to_predicates
from liftnn._src.graph.description import find_all_paths
from liftnn._src.graph.graphdef import WalkedTree, walk_tree
from liftnn._src.graph.kinds import VARIABLE, is_object
from liftnn._src.prefixes.prefix import OneOf, StateAxes
from liftnn._src.static_values.static import static_key
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, an, format_path, key_of
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable


@boundary
class ModulePrefix(StateAxes):
    """The values that `prefix` has computed for the Variables of a module, to be used as an entry of `in_axes`.

    Args:
      values: The value of each Variable and array by path. A shared Variable is there by each of its paths.

    Example:
      >>> from liftnn.compat import nnx
      >>> axes = nnx.prefix(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), {nnx.Param: 0})
      >>> axes.kernel, axes.state["bias"]
      (0, 0)
    """

    def __init__(self, values: Mapping[Path, Any]):
        paths: dict[Any, tuple[Any, list[Path]]] = {}
        for path, value in values.items():
            paths.setdefault(static_key(value), (value, []))[1].append(path)
        super().__init__([(OneOf(frozenset(each)), value) for value, each in paths.values()])
        self.state = State.from_flat(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "state":
            raise AttributeError(name)
        return getattr(self.state, name)

    def __repr__(self) -> str:
        return f"ModulePrefix({self.state.to_pure_dict()})"


@accept_modes
def prefix(node: Any, filter_map: Mapping[Filter, Any] | Callable[[Path, Any], Any], /) -> Any:
    """Return the value that a function, or the first filter that matches, gives to each Variable of a tree of modules.

    Args:
      node: A module, or any pytree with modules in it.
      filter_map: A function of path and Variable or array, or a mapping of filter to value.

    Returns:
      The tree with the value in the place of each Variable and array, and a `ModulePrefix` in the place of each module:
      an entry of `in_axes` or `out_axes` of the transforms. It has the values as attributes.

    Raises:
      FilterError: If a Variable or array matches none of the filters.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> models = nnx.vmap(lambda key: nnx.Linear(2, 3, rngs=nnx.Rngs(key)))(jax.random.split(jax.random.key(0), 4))
      >>> axes = nnx.prefix(models, {nnx.Param: 0})
      >>> nnx.vmap(lambda model, x: model(x), in_axes=(axes, None))(models, jnp.ones(2)).shape
      (4, 3)
    """
    value_of = filter_map if callable(filter_map) else _by_filter(filter_map)
    entries, treedef = jax.tree_util.tree_flatten_with_path(node, is_leaf=is_object)
    return treedef.unflatten([_prefix_of(tuple(map(key_of, path)), x, value_of) for path, x in entries])


def _by_filter(mapping: Mapping[Filter, Any]) -> Callable[[Path, Any], Any]:
    """Return a function that returns the value of the first filter that matches."""
    predicates, values = to_predicates(list(mapping)), list(mapping.values())

    def value_of(path: Path, x: Any) -> Any:
        position = first_match(predicates, path, x)
        if position < 0:
            raise errors.FilterError(
                f"No filter matched {format_path(path)} ({an(type(x))}) in nnx.prefix.",
                "Add a filter for it, or `...: value` as the last entry.",
            )
        return values[position]

    return value_of


def _prefix_of(root: Path, leaf: Any, value_of: Callable[[Path, Any], Any]) -> Any:
    """Return the value of a Variable or array, or the values of all that a module reaches."""
    if isinstance(leaf, Variable) or not is_object(leaf):
        return value_of(root, leaf)
    walked = walk_tree(leaf)
    return ModulePrefix({path: value_of((*root, *path), x) for path, x in _all_leaves(walked)})


def _all_leaves(walked: WalkedTree) -> list[tuple[Path, Any]]:
    """Return the Variables and arrays of a flattened tree, by each of their paths."""
    specs = walked.graphdef.specs
    by_number = {
        n: paths for n, paths in find_all_paths(walked.graphdef).items() if specs[n].kind is VARIABLE
    }
    pairs = [(path, slot, walked.leaf(slot)) for path, slot in walked.graphdef.leaves.items()]
    return [
        (every, x)
        for path, slot, x in pairs
        for every in (by_number[slot.node] if isinstance(x, Variable) else [path])
    ]
