"""The parameters that an optimizer updates: paths, types and metadata, and the States that optax gets for them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.filters import Filter, first_match, to_predicates
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.optim.fixed_entries import convert
from liftnn._src.publish import PICKLED, publish
from liftnn._src.trees import (
    Key,
    Path,
    an,
    format_path,
    is_argument_array,
    is_jax_array,
    is_leaf_tree,
    key_of,
    same_tree,
)
from liftnn._src.variables import frames
from liftnn._src.variables.metadata import SHARDING_NAMES, Metadata, holds_nodes
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State
from liftnn._src.variables.state_pytree import keys_of
from liftnn._src.variables.variable import Variable, make_variable


class ParameterLayout:
    """A static description of parameters; equal for models of the same structure.

    Args:
      leaves: The parameters by path: Variables, and arrays that are no Variables.
    """

    __slots__ = ("_hash", "_key", "_listed", "paths")

    def __init__(self, leaves: Mapping[Path, Any]):
        self.paths = {path: _model(x) for path, x in leaves.items()}
        """The class and metadata of each Variable by path; None for an array."""
        self._key = tuple(self.paths.items())
        self._hash = hash(self._key)
        self._listed: tuple[tuple[Path, ...], Any] | None = None

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, ParameterLayout) and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> Any:
        return restore_layout, (self._key,)

    def state(self, values: Mapping[Path, Any]) -> State:
        """Return a State of these values by path, with the types and metadata of the parameters."""
        owner = frames.owner_now()
        return State.from_flat([(path, self.wrap(path, values[path], owner)) for path in self.paths])

    def wrap(self, path: Path, value: Any, owner: Any) -> Any:
        """Return a value as what optax gets for a parameter: a Variable of its type, or the array itself."""
        model = self.paths[path]
        if model is None:
            return unwrap_raw(value)
        cls, metadata = model
        return make_variable(cls, unwrap_raw(value), metadata, owner)

    def listed(self) -> tuple[tuple[Path, ...], Any]:
        """Return the paths in the order in which JAX flattens a State, and the structure of its nested lists."""
        if self._listed is None:
            paths = tuple(self.paths)
            numbers = self.state({path: i for i, path in enumerate(paths)})
            lists = convert(numbers, lambda x, path: unwrap_raw(x), make_lists, dict)
            order, structure = jax.tree.flatten(lists)
            self._listed = tuple([paths[i] for i in order]), structure
        return self._listed

    def shardings(self, path: Path) -> dict[str, Any]:
        """Return the metadata that declare the sharding of what an optimizer holds for a parameter."""
        model = self.paths[path]
        entries = {} if model is None else model[1].entries
        optimizer_sharding = entries.get("optimizer_sharding")
        declared = {name: entries[name] for name in SHARDING_NAMES if name in entries}
        declared = declared if optimizer_sharding is None else {"out_sharding": optimizer_sharding}
        placing = {
            name: entries[name] for name in ("mesh", "sharding_rules", "eager_sharding") if name in entries
        }
        return {**declared, **placing} if declared else {}


def make_lists(entries: dict[Key, Any], aside: dict[Path, Any]) -> list[Any]:
    """Return the children of a State in the order in which JAX flattens them."""
    return [*keys_of(entries, aside).pick(entries), *aside.values()]


def restore_layout(key: Any) -> ParameterLayout:
    """Return a layout, for unpickling."""
    layout = ParameterLayout({})
    layout.paths, layout._key = dict(key), key
    layout._hash = hash(key)
    return layout


def _model(x: Any) -> tuple[type[Any], Metadata] | None:
    """Return the class of a Variable, and its metadata without what refers to modules or arrays of the model."""
    if not isinstance(x, Variable):
        return None
    entries = {name: copy.deepcopy(m) for name, m in x.get_metadata().items() if not holds_nodes(m)}
    return type(x), Metadata.of(entries)


def shapes(x: Any) -> list[tuple[int, ...]]:
    """Return the shape of each array in the value of a Variable, or of an array."""
    value = unwrap_raw(x)
    if is_jax_array(value):
        return [value.shape]
    return [getattr(leaf, "shape", None) or jnp.shape(leaf) for leaf in jax.tree.leaves(value)]


def same_structure(x: Any, other: Any) -> bool:
    """Return whether two Variables or arrays hold the same tree of arrays."""
    value, expected = unwrap_raw(x), unwrap_raw(other)
    if is_jax_array(value) and is_jax_array(expected):
        return True
    return same_tree(jax.tree.structure(value), jax.tree.structure(expected))


def same_shapes(x: Any, other: Any) -> bool:
    """Return whether two Variables or arrays hold the same tree of arrays, of the same shapes."""
    value, expected = unwrap_raw(x), unwrap_raw(other)
    if is_jax_array(value) and is_jax_array(expected):
        return value.shape == expected.shape
    return shapes(value) == shapes(expected) and same_structure(value, expected)


def shapes_text(x: Any) -> str:
    """Format the shapes of the arrays in the value of a Variable, such as `(2, 3)` or `dict(a: (2, 3))`."""
    entries, tree = jax.tree_util.tree_flatten_with_path(unwrap_raw(x))
    if is_leaf_tree(tree):
        return str(*shapes(x))
    paths = [format_path(tuple(map(key_of, entry))) for entry, _ in entries]
    parts = [f"{path}: {shape}" for path, shape in zip(paths, shapes(x), strict=True)]
    return f"{type(unwrap_raw(x)).__name__}({', '.join(parts)})" if parts else "nothing"


def find_leaves(tree: Any, filter: Filter) -> dict[Path, Any]:
    """Return the live Variables and the array leaves that match, by first path, without Variables that hold no array.

    Args:
      tree: A module, a State, or any pytree with modules in it.
      filter: The filter.

    Returns:
      The Variables themselves and the arrays, in order.

    Raises:
      FilterError: If the filter is not one.
    """
    predicates = to_predicates((filter,))
    if isinstance(tree, State):
        leaves = [
            (path, frames.resolve(x) if isinstance(x, Variable) else x) for path, x in tree.flat().items()
        ]
    else:
        leaves = walk_tree(tree).leaves()
    return {path: x for path, x in leaves if first_match(predicates, path, x) >= 0 and has_arrays(x)}


def has_arrays(x: Any) -> bool:
    """Return whether a leaf is an array, or a Variable with an array in its value; one with None has no gradient."""
    if not isinstance(x, Variable):
        return True
    value = x.raw_value
    return is_jax_array(value) or any(map(is_argument_array, jax.tree.leaves(value)))


def check_values(leaves: Mapping[Path, Any], purpose: str) -> None:
    """Raise ArgumentTypeError if a leaf is abstract, as those of a model of `eval_shape`; name the first one.

    Args:
      leaves: The leaves by path.
      purpose: What cannot be done without values, such as "an EMA cannot average it".
    """
    for path, _, v in _parts(leaves):
        if isinstance(v, jax.ShapeDtypeStruct):
            raise errors.ArgumentTypeError(
                f"{format_path(path)} is abstract: it has a shape and a dtype, but no value, so {purpose}.",
                "Create the model without `eval_shape`, or set all its Variables first, for example by "
                "`update(model, state)`.",
            )


def check_arrays(leaves: Mapping[Path, Any], purpose: str) -> None:
    """Raise ArgumentTypeError if the value of a Variable holds more than arrays, such as a function; name the first.

    Args:
      leaves: The leaves by path.
      purpose: What cannot be done with it, such as "an EMA cannot average it".
    """
    for path, entry, v in _parts(leaves):
        if not is_argument_array(v):
            where = format_path(tuple(map(key_of, entry)), f"{format_path(path)}.value")
            raise errors.ArgumentTypeError(
                f"{where} is {an(type(v))}, not an array, so {purpose}.",
                "Store only arrays in the Variable, and the rest in an attribute of the module. For a module of "
                "Equinox, `equinox.partition(x, equinox.is_inexact_array)` returns the two parts.",
            )


def _parts(leaves: Mapping[Path, Any]) -> Iterator[tuple[Path, Any, Any]]:
    """Yield each part of the values that are no JAX arrays: the path of the leaf, the key path in its value, itself."""
    for path, x in leaves.items():
        value = unwrap_raw(x)
        if not is_jax_array(value):
            for entry, v in jax.tree_util.tree_leaves_with_path(value):
                yield path, entry, v


publish(restore_layout, module=PICKLED)
