"""Tree prefixes of axes and shardings, and the prefixes `StateAxes` and `StateSharding`, which depend on the Variable.

As in JAX, `in_axes` or `in_shardings` is a tree prefix of the arguments. A module is one leaf of that tree: its entry
applies to all Variables and array leaves of the module. A `ByFilter` entry holds pairs of filter and prefix instead, so
it can give each Variable its own axis or sharding. `leaf_prefixes` and `broadcast_over` expand a tree prefix to one
prefix for each leaf of a tree; `spread.py` continues inside the modules.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
from jax.sharding import PartitionSpec, Sharding

from liftnn import errors
from liftnn._src.filters import Filter, Predicate, to_predicate
from liftnn._src.graph.kinds import is_jax_tree, is_object
from liftnn._src.lifting.contract import Plan
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, an, format_path, is_leaf_tree, key_of, pair_prefix, treedef_text
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

Prefix = Any
"""An axis, a sharding, a spec or None; or a `ByFilter`."""


class ByFilter:
    """A prefix that depends on the Variable: the first filter that matches decides.

    Args:
      prefixes: A mapping, or pairs, of filter and prefix; or a State of prefixes, which is matched by path.

    Raises:
      FilterError: If one of the filters is not a filter.
    """

    is_by_path = True
    """Whether the prefix may depend on the path by which a Variable is reached."""

    def __init__(self, prefixes: Any):
        prefixes = _by_path(prefixes) if isinstance(prefixes, State) else prefixes
        pairs = tuple(prefixes.items() if hasattr(prefixes, "items") else prefixes)
        self.filters: tuple[Filter, ...] = tuple([f for f, _ in pairs])
        """The filters as they were passed, in their order."""
        self.pairs = tuple([(to_predicate(f), prefix) for f, prefix in pairs])

    def of(self, path: Path, x: Any, root: str = "") -> Prefix:
        """Return the prefix of a Variable or array leaf at a path below the argument named `root`."""
        for predicate, prefix in self.pairs:
            if predicate(path, x):
                return prefix
        what = f"{an(type(x))}" if isinstance(x, Variable) else "an array"
        raise errors.FilterError(
            f"{format_path(path, root)} ({what}) matches none of the filters of the {type(self).__name__}."
        )

    def below(self, root: Path) -> ByFilter:
        """Return the prefix of the part at a path: its filters see the whole paths."""
        part = copy.copy(self)
        part.pairs = tuple([(Below(root, predicate), prefix) for predicate, prefix in self.pairs])
        return part

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByFilter) and type(self) is type(other) and self.pairs == other.pairs

    def __hash__(self) -> int:
        return hash((type(self), self.pairs))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.pairs)})"


@dataclasses.dataclass(frozen=True)
class Below:
    """A filter that gets the paths in a part of a tree, and sees them from the root of the tree.

    Args:
      root: The path of the part.
      predicate: The filter.
    """

    root: Path
    predicate: Predicate

    def __call__(self, path: Path, x: Any) -> bool:
        """Return whether the filter matches."""
        return self.predicate((*self.root, *path), x)


@boundary
class StateAxes(ByFilter, Mapping[Any, Any]):
    """The mapped axis of each Variable of a module, by filter: a mapping of filter to axis.

    Args:
      axes: A mapping of filter to axis: an int, or None for Variables that all batch elements share. The first match
        wins. May also be a State of axes, which is matched by path.

    Raises:
      FilterError: If one of the filters is not a filter.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> axes = liftnn.StateAxes({liftnn.Param: 0, ...: None})
      >>> init = liftnn.vmap(lambda key: liftnn.Linear(2, 3, rngs=liftnn.Rngs(key)))
      >>> ensemble = init(jax.random.split(jax.random.key(0), 5))
      >>> liftnn.vmap(lambda m, x: m(x), in_axes=(axes, None))(ensemble, jnp.ones((1, 2))).shape
      (5, 1, 3)
    """

    def __init__(self, axes: State | Mapping[Any, int | None] | Iterable[tuple[Filter, int | None]]):
        super().__init__(axes)

    @property
    def axes(self) -> tuple[Any, ...]:
        """The axes, in the order of the filters."""
        return tuple([axis for _, axis in self.pairs])

    def __getitem__(self, key: Filter) -> Any:
        """Return the axis of a filter, as it was passed."""
        for f, axis in zip(self.filters, self.axes, strict=True):  # a filter need not be hashable
            if f == key:
                return axis
        raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.filters)

    def __len__(self) -> int:
        return len(self.filters)


@boundary
class StateSharding(ByFilter):
    """The sharding (for `jit`) or partition spec (for `shard_map`) of each Variable of a module, by filter.

    Args:
      shardings: For `jit` a mapping of filter to `jax.sharding.Sharding`, or to None to let the compiler choose. For
        `shard_map` a mapping of filter to `jax.sharding.PartitionSpec`. The first match wins. May also be a State of
        shardings or specs, as returned by `get_named_sharding` and `get_partition_spec`, which is matched by path.

    Raises:
      FilterError: If one of the filters is not a filter.

    Example:
      >>> import jax, liftnn
      >>> mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
      >>> placed = liftnn.StateSharding({liftnn.Param: whole, ...: None})
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> liftnn.jit(lambda m: m.kernel.sum(), in_shardings=(placed,))(model).shape
      ()
    """

    def __init__(self, shardings: Any):
        super().__init__(shardings)

    @property
    def shardings(self) -> tuple[Any, ...]:
        """The shardings or specs, in the order of the filters."""
        return tuple([sharding for _, sharding in self.pairs])


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A filter that matches Variables at some paths.

    Args:
      paths: The paths.
    """

    paths: frozenset[Path]

    def __call__(self, path: Path, x: Any) -> bool:
        """Return whether the path is one of them."""
        return path in self.paths


def _by_path(shardings: State) -> list[tuple[OneOf, Any]]:
    """Return a filter for each distinct sharding in a State."""
    paths: dict[Any, list[Path]] = {}
    for path, x in shardings.flat().items():
        paths.setdefault(unwrap_raw(x), []).append(path)
    return [(OneOf(frozenset(each)), sharding) for sharding, each in paths.items()]


def as_prefixes(shardings: Any) -> Any:
    """Replace each State in a tree of shardings or specs by a StateSharding, and each Variable by what it holds.

    A module that is a pytree of JAX may hold shardings in place of arrays; it is replaced likewise.
    """

    def replace(x: Any) -> Any:
        if isinstance(x, Variable) and isinstance(x.raw_value, (Sharding, PartitionSpec)):
            return x.raw_value
        if is_jax_tree(x):
            leaves = jax.tree.leaves_with_path(x, is_leaf=lambda y: isinstance(y, Variable))
            x = State.from_flat({tuple(map(key_of, path)): y for path, y in leaves})
        return StateSharding(x) if isinstance(x, State) else x

    return jax.tree.map(replace, shardings, is_leaf=lambda x: isinstance(x, State) or is_object(x))


def leaf_prefixes(plan: Plan, prefix: Prefix, bound: bool, named: Prefix, unmapped: Prefix) -> list[Prefix]:
    """Return the prefix of each leaf of the arguments, from a tree prefix of the positional arguments.

    Args:
      plan: The arguments.
      prefix: The tree prefix.
      bound: Whether argument 0 is the module of a bound method, which the prefix may omit.
      named: The prefix of keyword arguments.
      unmapped: The prefix of a module that `prefix` omits, and of the arguments stored in a partial.

    Returns:
      The prefixes.

    Raises:
      ArgumentError: If it is not a tree prefix.
    """
    args_treedef = plan.graph.treedef.children()[0]
    prefix = positional_prefix(plan, prefix, bound, unmapped)
    leaves = broadcast_over(prefix, args_treedef, "the positional arguments")
    leaves += [named] * sum(len(a.leaves) for a in plan.arguments[1].values())
    return leaves + [unmapped] * (len(plan.graph.edges) - len(leaves))


def count_positional(prefix: Prefix) -> int:
    """Return the number of positional arguments that a tree prefix has entries for; 0 if one entry is for all."""
    return len(prefix) if isinstance(prefix, (tuple, list)) else 0


def positional_prefix(plan: Plan, prefix: Prefix, bound: bool, unmapped: Prefix) -> Prefix:
    """Return a tree prefix of all positional arguments, including a bound method's module; see `leaf_prefixes`."""
    prefix = tuple(prefix) if isinstance(prefix, list) else prefix
    if bound:
        explicit = len(plan.arguments[0]) - 1
        if not isinstance(prefix, tuple):
            return (unmapped,) + (prefix,) * explicit
        if len(prefix) == explicit:
            return (unmapped, *prefix)
    return prefix


def broadcast_over(prefix: Prefix, treedef: Any, what: str) -> list[Prefix]:
    """Return one prefix for each leaf of a tree.

    Args:
      prefix: A tree prefix.
      treedef: The tree.
      what: The name of the tree in error messages.

    Returns:
      The prefixes.

    Raises:
      ArgumentError: If it is not a tree prefix.
    """
    if prefix is None or isinstance(prefix, int):
        return [prefix] * treedef.num_leaves
    try:
        pairs = pair_prefix(prefix, treedef, is_prefix_leaf)
    except ValueError as error:
        n_arguments = len(treedef.children())
        if what == "the positional arguments" and isinstance(prefix, tuple) and len(prefix) > n_arguments:
            raise errors.ArgumentError(
                f"{prefix!r} has {len(prefix)} entries, but the call has {n_arguments} positional "
                f"argument{'s' * (n_arguments != 1)}.",
                "Pass an argument for each entry: None where there is nothing, such as the slices of a `scan` with "
                "`length`.",
            ) from error
        if what == "the output" and type(prefix) is tuple and _count_parts(treedef) != len(prefix):
            n_parts = _count_parts(treedef)
            returned = "one value" if n_parts is None else f"a tuple of {n_parts}"
            raise errors.ArgumentError(
                f"{prefix!r} has {len(prefix)} entries, but the function returned {returned}: "
                f"{treedef_text(treedef)}.",
                "Return a tuple with a value for each entry, such as None where there is nothing.",
            ) from error
        raise errors.ArgumentError(
            f"{prefix!r} is not a tree prefix of {what}: {treedef_text(treedef)}.",
            "Give one entry for the whole tree, or one for each subtree. A module counts as one leaf; use StateAxes "
            "(or StateSharding) to give its Variables different entries.",
        ) from error
    return [each for entry, part in pairs for each in _broadcast(entry, part)]


def _count_parts(treedef: Any) -> int | None:
    """Return the number of elements of a tuple; None for the structure of another value."""
    data = treedef.node_data()
    return len(treedef.children()) if data is not None and data[0] is tuple else None


def _broadcast(entry: Prefix, treedef: Any) -> list[Prefix]:
    """Return the prefix of each leaf of the tree that an entry is for; filters see the paths in a State."""
    if not isinstance(entry, ByFilter) or is_leaf_tree(treedef):
        return [entry] * treedef.num_leaves
    data = treedef.node_data()
    if data is not None and issubclass(data[0], State):
        paths, _ = jax.tree_util.tree_flatten_with_path(treedef.unflatten(range(treedef.num_leaves)))
        return [entry.below(tuple(map(key_of, path))) for path, _ in paths]
    return [each for child in treedef.children() for each in _broadcast(entry, child)]


def prefix_leaves(prefix: Prefix) -> list[Prefix]:
    """Return the entries of a tree prefix."""
    return jax.tree.leaves(prefix, is_leaf=lambda x: x is None or is_prefix_leaf(x))


def is_prefix_leaf(x: Any) -> bool:
    """Return whether an object in a tree prefix is a single prefix, even if JAX would flatten it."""
    return isinstance(x, (ByFilter, jax.sharding.Sharding, jax.sharding.PartitionSpec))
