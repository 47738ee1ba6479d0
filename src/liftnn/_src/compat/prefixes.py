"""`prefix`: the axes, shardings or other values of the Variables of modules, computed by path or by filters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax

from liftnn import errors
from liftnn._src.compat.modes import accept_modes
from liftnn._src.filters import Filter, Predicate, to_predicate
from liftnn._src.graph.description import find_all_paths
from liftnn._src.graph.graphdef import WalkedTree, walk_tree
from liftnn._src.graph.kinds import is_object
from liftnn._src.prefixes.prefix import Below, OneOf, StateAxes, StateSharding
from liftnn._src.static_values.static import static_key
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, an, format_path, key_of
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable


@boundary
class ModulePrefix(StateAxes, StateSharding):
    """The values that `prefix` has computed for the Variables of a module: an entry of `in_axes`, `in_shardings` ...

    Args:
      values: The value of each Variable and array by path. A shared Variable is there by each of its paths.
      others: Pairs of filter and value for Variables at other paths.

    Example:
      >>> from liftnn.compat import nnx
      >>> axes = nnx.prefix(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), {nnx.Param: 0})
      >>> axes.kernel, axes.state["bias"]
      (0, 0)
    """

    def __init__(self, values: Mapping[Path, Any], others: Iterable[tuple[Predicate, Any]] = ()):
        paths: dict[Any, tuple[Any, list[Path]]] = {}
        for path, value in values.items():
            paths.setdefault(static_key(value), (value, []))[1].append(path)
        known = [(OneOf(frozenset(each)), value) for value, each in paths.values()]
        super().__init__([*known, *others])
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
      node: A module, or any pytree with modules in it; they may be abstract.
      filter_map: A function of path and Variable or array, or a mapping of filter to value. Paths start at `node`.

    Returns:
      The tree with the value in the place of each Variable and array, and a `ModulePrefix` in the place of each module:
      an entry of the axes, shardings or specs of a transform. It has the values as attributes. Variables that `node`
      does not have are matched by the filters when they are met.

    Raises:
      FilterError: If a Variable or array matches none of the filters, or a key of the mapping is not a filter.
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> models = nnx.vmap(lambda key: nnx.Linear(2, 3, rngs=nnx.Rngs(key)))(jax.random.split(jax.random.key(0), 4))
      >>> axes = nnx.prefix(models, {nnx.Param: 0})
      >>> nnx.vmap(lambda model, x: model(x), in_axes=(axes, None))(models, jnp.ones(2)).shape
      (4, 3)
    """
    by_filter = isinstance(filter_map, Mapping)
    pairs = [(to_predicate(f), value) for f, value in filter_map.items()] if by_filter else []
    value_of: Any = _FirstMatch(pairs) if by_filter else filter_map

    def of_leaf(entries: Any, leaf: Any) -> Any:
        root = tuple(map(key_of, entries))
        if isinstance(leaf, Variable) or not is_object(leaf):
            return value_of(root, leaf)
        values = {path: value_of((*root, *path), x) for path, x in _all_leaves(walk_tree(leaf))}
        return ModulePrefix(values, [(Below(root, predicate), value) for predicate, value in pairs])

    return jax.tree_util.tree_map_with_path(of_leaf, node, is_leaf=is_object)


@dataclasses.dataclass(frozen=True)
class _FirstMatch:
    """Returns the value for the first filter that matches."""

    pairs: list[tuple[Predicate, Any]]

    def __call__(self, path: Path, x: Any) -> Any:
        for predicate, value in self.pairs:
            if predicate(path, x):
                return value
        what = an(type(x)) if isinstance(x, Variable) else "an array"
        raise errors.FilterError(
            f"No filter matched {format_path(path)} ({what}) in nnx.prefix.",
            "Add a filter for it, or `...: value` as the last entry.",
        )


def _all_leaves(walked: WalkedTree) -> Iterator[tuple[Path, Any]]:
    """Return the Variables and arrays of a flattened tree, by each of their paths."""
    of_nodes = find_all_paths(walked.graphdef)
    for path, slot in walked.graphdef.leaves.items():
        for above in of_nodes[slot.node]:
            yield above if slot.key is None else (*above, path[-1]), walked.leaf(slot)
