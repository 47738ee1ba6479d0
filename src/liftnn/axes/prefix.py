"""Prefixes: one axis (or sharding) for each argument, spread over the Variables and arrays that it reaches.

A prefix follows JAX: a tree prefix of the arguments whose leaves say what happens to everything below. Where the
argument is a module, its prefix holds for all that the module reaches; a `ByFilter` prefix (such as `StateAxes`)
gives each Variable its own. One Variable reached with two different prefixes is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax

from liftnn import errors
from liftnn.filters import Filter, to_predicate
from liftnn.graph.description import ARRAY, NodeSpec
from liftnn.graph.kinds import VARIABLE
from liftnn.graph.merge import Change
from liftnn.lifting.after import output_names, specs_after
from liftnn.lifting.result import Plan, Result
from liftnn.tracebacks import boundary
from liftnn.trees import Path, broadcast_prefix, format_path
from liftnn.variables import frames
from liftnn.variables.variable import Variable, make_variable

Prefix = Any


class ByFilter:
    """A prefix that depends on the Variable: the first filter that matches decides.

    Args:
      prefixes: A mapping, or pairs, of filter and prefix.

    Raises:
      FilterError: If one of the filters is not a filter.
    """

    def __init__(self, prefixes: Any):
        pairs = prefixes.items() if hasattr(prefixes, "items") else prefixes
        self.pairs = tuple([(to_predicate(f), prefix) for f, prefix in pairs])

    def of(self, path: Path, x: Any, root: str = "") -> Prefix:
        """The prefix of a Variable or bare array at a path below the argument that `root` names."""
        for predicate, prefix in self.pairs:
            if predicate(path, x):
                return prefix
        what = f"a {type(x).__name__}" if isinstance(x, Variable) else "an array"
        raise errors.FilterError(
            f"{format_path(path, root)} ({what}) matches none of the filters of the {type(self).__name__}."
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByFilter) and type(self) is type(other) and self.pairs == other.pairs

    def __hash__(self) -> int:
        return hash((type(self), self.pairs))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.pairs)})"


@boundary
class StateAxes(ByFilter):
    """The mapped axis of each Variable of a module, by filter.

    Args:
      axes: A mapping of filter to axis: an int, or None for Variables that all lanes share. The first match wins.

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

    def __init__(self, axes: dict[Any, int | None] | Iterable[tuple[Filter, int | None]]):
        super().__init__(axes)


class Entry(NamedTuple):
    """How a node was first reached: with which prefix, from which root, on which path below it."""

    prefix: Prefix
    root: str
    path: Path


class Spread:
    """The prefix of every node, grown from the roots down.

    Args:
      specs: Node specs by number; None where nothing is known below.
    """

    def __init__(self, specs: Sequence[NodeSpec | None]):
        self.specs = specs
        self.settled = 0
        """Nodes below this number keep the prefix that they have."""
        self.entries: dict[int, Entry] = {}
        self._seen: set[tuple[int, Any]] = set()

    def add(self, edge: Any, prefix: Prefix, root: str, path: Path = ()) -> None:
        """Gives a prefix to everything that an edge reaches.

        Args:
          edge: The edge.
          prefix: The prefix.
          root: Where the edge starts, in words.
          path: The path from the root to it.

        Raises:
          AliasingError: If a Variable or bare array has another prefix already; the message names both paths.
        """
        stack: list[tuple[Any, Path]] = [(edge, path)]
        while stack:
            number, path = stack.pop()
            if type(number) is not int or number < self.settled or (number, prefix) in self._seen:
                continue
            self._seen.add((number, prefix))
            entry = Entry(prefix, root, path)
            first = self.entries.setdefault(number, entry)
            spec = self.specs[number]
            if first is not entry and spec is not None:
                self._check(number, spec, first, entry)
            if spec is not None and spec.edges:
                pairs = zip(spec.keys, spec.edges, strict=True)
                stack += [(e, (*path, k)) for k, e in pairs if type(e) is int][::-1]

    def after(self, plan: Plan, change: Change) -> Spread:
        """The prefixes after a call: known nodes have those that they had, and spread them over what is new below."""
        spread = Spread(specs_after(plan, change))
        spread.entries, spread._seen = dict(self.entries), set(self._seen)
        for number, spec in change.changed:
            if number in self.entries:
                prefix, root, path = self.entries[number]
                for key, edge in zip(spec.keys, spec.edges, strict=True):
                    spread.add(edge, prefix, root, (*path, key))
        return spread

    def _check(self, number: int, spec: NodeSpec, first: Entry, second: Entry) -> None:
        has_arrays = any(e is ARRAY for e in spec.edges)
        if spec.kind is not VARIABLE and not has_arrays:
            return
        one, two = (self._resolved(spec, e) for e in (first, second))
        if one != two:
            a, b = (format_path(e.path, e.root) for e in (first, second))
            raise errors.AliasingError(
                f"{a} and {b} are the same {spec.type.__name__}, but the one has the prefix {one!r} and the other "
                f"{two!r}."
            )

    def _resolved(self, spec: NodeSpec, entry: Entry) -> Prefix:
        """The prefix of a Variable, or those of the bare arrays that a node holds."""
        prefix, root, path = entry
        if not isinstance(prefix, ByFilter):
            return prefix
        if spec.kind is VARIABLE:
            return prefix.of(path, _dummy(spec), root)
        found = [prefix.of((*path, k), None, root) for k in array_keys(spec)]
        return found[0] if len({*found}) == 1 else tuple(found)

    def of_value(self, number: int, value: Any) -> Prefix:
        """The prefix of a Variable that holds `value`."""
        entry = self.entries[number]
        if not isinstance(entry.prefix, ByFilter):
            return entry.prefix
        return entry.prefix.of(entry.path, _dummy(self.specs[number], value), entry.root)

    def of_array(self, number: int, key: Any, array: Any) -> Prefix:
        """The prefix of a bare array that a node holds under a key."""
        entry = self.entries[number]
        if not isinstance(entry.prefix, ByFilter):
            return entry.prefix
        return entry.prefix.of((*entry.path, key), array, entry.root)


def array_keys(spec: NodeSpec) -> list[Any]:
    """The keys of the bare arrays that a node holds."""
    return [k for k, e in zip(spec.keys, spec.edges, strict=True) if e is ARRAY]


def _dummy(spec: NodeSpec | None, value: Any = None) -> Any:
    """Something that a filter can look at in place of the Variable itself."""
    assert spec is not None
    return make_variable(spec.type, value, spec.extra, frames.owner_now()) if spec.kind is VARIABLE else value


def spread_arguments(plan: Plan, leaf_prefixes: Sequence[Prefix]) -> Spread:
    """The prefixes of all nodes that the arguments reach.

    Args:
      plan: The arguments.
      leaf_prefixes: The prefix of each leaf of the arguments.

    Returns:
      The prefixes by node.

    Raises:
      AliasingError: If one Variable is reached with two prefixes.
    """
    spread = Spread(plan.graph.specs)
    for edge, prefix, name in zip(plan.graph.edges, leaf_prefixes, plan.leaf_names, strict=True):
        spread.add(edge, prefix, name)
    return spread


def value_prefixes(plan: Plan, spread: Spread, values: Sequence[Any]) -> list[Prefix]:
    """The prefix of each Variable's value."""
    return [spread.of_value(n, v) for n, v in zip(plan.variables, values, strict=True)]


def array_prefixes(
    plan: Plan, spread: Spread, leaf_prefixes: Sequence[Prefix], arrays: Sequence[Any]
) -> list[Prefix]:
    """The prefix of each bare array."""
    prefixes: list[Prefix] = [None] * len(arrays)
    for leaf, i in plan.leaf_arrays.items():
        own = leaf_prefixes[leaf]
        prefixes[i] = own.of((), arrays[i], plan.leaf_names[leaf]) if isinstance(own, ByFilter) else own
    for number, places in plan.node_arrays.items():
        for key, i in zip(array_keys(plan.graph.specs[number]), places, strict=True):
            prefixes[i] = spread.of_array(number, key, arrays[i])
    return prefixes


class Placement(NamedTuple):
    """The prefix of everything a pure call returns, in the order of its `Result`."""

    arrays: list[Prefix]
    new: list[Prefix]
    updates: list[Prefix]


def place_result(
    plan: Plan,
    before: Spread,
    inputs: Sequence[Prefix],
    result: Result,
    out_prefix: Prefix,
    settled: bool = False,
    adapt: Callable[[Prefix], Prefix] = lambda prefix: prefix,
) -> Placement:
    """The prefix of everything a pure call returns.

    What belongs to a known object has the object's prefix; what is new has that of the place where it was put: an
    output's `out_prefix`, or the prefix of the module that it was attached to.

    Args:
      plan: The arguments.
      before: The prefixes of the known nodes.
      inputs: The prefix of each input Variable's value.
      result: The result.
      out_prefix: A tree prefix of the output.
      settled: Whether a known object in the output has its own prefix, whatever `out_prefix` says there. The default
        is False: the two must agree, unless `out_prefix` is None there.
      adapt: Gives the prefix to use in place of each entry of `out_prefix`. The default is that entry.

    Returns:
      The prefixes.

    Raises:
      AliasingError: If a Variable belongs to two places with different prefixes.
      ArgumentError: If `out_prefix` is not a tree prefix of the output.
    """
    change = result.change
    leaves = list(map(adapt, broadcast_over(out_prefix, change.treedef, "the output")))
    after = before.after(plan, change)
    for edge, prefix, name in zip(change.edges, leaves, output_names(change), strict=True):
        after.settled = change.known if settled or prefix is None else 0
        after.add(edge, prefix, name)
    taken = iter(result.arrays)
    arrays = [
        p.of((), next(taken), "the output") if isinstance(p, ByFilter) else (next(taken), p)[1]
        for e, p in zip(change.edges, leaves, strict=True)
        if e is ARRAY
    ]
    for number, spec in (*change.changed, *enumerate(change.new, change.known)):
        arrays += [after.of_array(number, key, next(taken)) for key in array_keys(spec)]
    made = [n for n, spec in enumerate(change.new, change.known) if spec.kind is VARIABLE]
    new = [after.of_value(n, v) for n, v in zip(made, result.new, strict=True)]
    return Placement(arrays, new, list(inputs))


def broadcast_over(prefix: Prefix, treedef: Any, what: str) -> list[Prefix]:
    """One prefix for each leaf of a tree.

    Args:
      prefix: A tree prefix.
      treedef: The tree.
      what: What it is, for the message.

    Returns:
      The prefixes.

    Raises:
      ArgumentError: If it is not a tree prefix.
    """
    if prefix is None or isinstance(prefix, (int, ByFilter)):
        return [prefix] * treedef.num_leaves
    try:
        return broadcast_prefix(prefix, treedef, is_prefix_leaf)
    except ValueError as error:
        raise errors.ArgumentError(
            f"{prefix!r} is not a tree prefix of {what}: {str(treedef).removeprefix('PyTreeDef(')[:-1]}.",
            "Give one entry for the whole, or one for each part; a module is one part, whose Variables StateAxes (or "
            "StateSharding) tells apart.",
        ) from error


def prefix_leaves(prefix: Prefix) -> list[Prefix]:
    """The entries of a tree prefix."""
    return jax.tree.leaves(prefix, is_leaf=lambda x: x is None or is_prefix_leaf(x))


def is_prefix_leaf(x: Any) -> bool:
    """Whether something in a tree prefix is one prefix, whatever JAX takes it for."""
    return isinstance(x, (ByFilter, jax.sharding.Sharding, jax.sharding.PartitionSpec))


# --- results grouped by prefix


class Layout(NamedTuple):
    """Where each part of a grouped result went: pairs of group and position.

    Args:
      arrays: For each array.
      new: For each new value.
      updates: For each update; None for one that is None.
      change: The change.
    """

    arrays: tuple[tuple[int, int], ...]
    new: tuple[tuple[int, int], ...]
    updates: tuple[tuple[int, int] | None, ...]
    change: Change


jax.tree_util.register_static(Layout)


def group(result: Result, placement: Placement, choices: Sequence[Prefix]) -> tuple[list[list[Any]], Layout]:
    """The parts of a result in one list for each prefix, so that the JAX function can be told it in advance.

    Args:
      result: The result.
      placement: The prefix of each part.
      choices: All prefixes that can occur.

    Returns:
      The lists, and where each part went.
    """
    groups: list[list[Any]] = [[] for _ in choices]

    def put(x: Any, prefix: Prefix) -> tuple[int, int]:
        at = choices.index(prefix)
        groups[at].append(x)
        return at, len(groups[at]) - 1

    return groups, Layout(
        tuple(map(put, result.arrays, placement.arrays)),
        tuple(map(put, result.new, placement.new)),
        tuple(
            [None if x is None else put(x, p) for x, p in zip(result.updates, placement.updates, strict=True)]
        ),
        result.change,
    )


def ungroup(groups: Sequence[Sequence[Any]], layout: Layout, extra: Any = None) -> Result:
    """The inverse of `group`."""

    def get(place: tuple[int, int] | None) -> Any:
        return None if place is None else groups[place[0]][place[1]]

    parts: list[Callable[..., Any]] = [lambda places: list(map(get, places))]
    return Result(
        parts[0](layout.arrays), parts[0](layout.new), parts[0](layout.updates), layout.change, extra
    )


def distinct(prefixes: Iterable[Any]) -> list[Prefix]:
    """The different prefixes that can occur, those inside `ByFilter` included, and None last."""
    found: list[Prefix] = []
    for prefix in prefixes:
        for p in [q for _, q in prefix.pairs] if isinstance(prefix, ByFilter) else [prefix]:
            if p is not None and p not in found:
                found.append(p)
    return [*found, None]
