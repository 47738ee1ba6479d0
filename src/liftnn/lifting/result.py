"""What a pure call returns, and the plan that tells a transform what goes into it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from liftnn.graph.description import ARRAY, Description, find_all_paths, first_paths
from liftnn.graph.kinds import VARIABLE, is_object
from liftnn.graph.merge import Change, merge_all
from liftnn.trees import Path, format_path
from liftnn.variables.holding import leads_to
from liftnn.variables.metadata import Metadata

STORED, CAPTURED = 2, 3
"""Positions in the tree that is flattened: the arguments stored in a partial, and what the function captures."""


class Result(NamedTuple):
    """The result of a pure call: a JAX pytree whose static part is `change`.

    Args:
      arrays: Bare arrays: those of the output, then those of changed and new nodes.
      new: Values of the Variables made inside, by order of number.
      updates: One entry for each input Variable; None if it was not written.
      change: The static description of what was returned, made and changed.
      extra: What the transform itself produced: gradients, an error; None if nothing.

    Example:
      >>> import liftnn
      >>> def count_writes(f):
      ...   def bind(plan, pure):
      ...     def call(values, arrays):
      ...       result = pure(values, arrays)
      ...       return result._replace(extra=sum(x is not None for x in result.updates))
      ...     return call
      ...   return liftnn.lift(f, bind=bind, finish=lambda output, extra: extra)
      >>> def double_bias(layer):
      ...   layer.bias.value = 2 * layer.bias
      >>> count_writes(double_bias)(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))
      1
    """

    arrays: list[Any]
    new: list[Any]
    updates: list[Any]
    change: Change
    extra: Any = None


class Argument(NamedTuple):
    """One argument of the call: which leaves of the arguments' tree are its own.

    Args:
      name: In words, such as `args[0]`.
      treedef: Its own tree.
      leaves: Positions of its leaves in `Plan.graph.edges`.
    """

    name: str
    treedef: Any
    leaves: range


class Plan:
    """What a transform may know about the arguments before it runs: types, paths, places; no live object.

    A pure call takes `(values, arrays)`: `values` has one entry for each Variable, in the order of `variables`, and
    `arrays` one for each bare array: first those among the leaves of the arguments, then those of each node.

    Args:
      graph: The description of `(args, kwargs)`; where there are some, followed by the arguments stored in a partial,
        the captured modules by name, what of those is a constant, and how they are held.
      names: What messages call the positional arguments. The default, none, is `args[0]` and so on.

    Example:
      >>> import liftnn
      >>> def show_variables(f):
      ...   def bind(plan, pure):
      ...     print([plan.path_of(number) for number in plan.variables])
      ...     return pure
      ...   return liftnn.lift(f, bind=bind)
      >>> show_variables(lambda layer: None)(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))
      ['args[0].kernel', 'args[0].bias']
    """

    def __init__(self, graph: Description, names: Sequence[str] = ()):
        self.graph = graph
        self.names = names
        self.variables = tuple([i for i, spec in enumerate(graph.specs) if spec.kind is VARIABLE])
        self.slots = {number: slot for slot, number in enumerate(self.variables)}
        self.leaf_arrays = {
            leaf: n for n, leaf in enumerate(i for i, e in enumerate(graph.edges) if e is ARRAY)
        }
        """Position in `arrays` of each leaf of the arguments that is a bare array."""
        self.node_arrays: dict[int, range] = {}
        """Positions in `arrays` of the bare arrays of each node that has some."""
        end = len(self.leaf_arrays)
        for number, spec in enumerate(graph.specs):
            count = sum(e is ARRAY for e in spec.edges) if spec.edges else 0
            if count:
                self.node_arrays[number] = range(end, end + count)
                end += count
        self.n_arrays = end

    def name(self, path: Path) -> str:
        """A path from `(args, kwargs)` down, in words.

        Args:
          path: The path.

        Returns:
          For example `args[0].encoder.w`.
        """
        return name_argument(path, self.names)

    @property
    def types(self) -> list[type]:
        """The class of each Variable."""
        return [self.graph.specs[number].type for number in self.variables]

    @functools.cached_property
    def leaf_paths(self) -> list[Path]:
        """The path of each leaf of the arguments."""
        return list(self.graph.paths)

    @functools.cached_property
    def captured(self) -> dict[int, Path]:
        """The nodes that the function reaches through what it captures, by number."""
        return self.reach([i for i, path in enumerate(self.leaf_paths) if path[0] == CAPTURED])

    def captured_name(self, number: int) -> str:
        """What the code calls a node that it captures, or the way there from a name in the code.

        Args:
          number: The number of the node.

        Returns:
          For example `model.layers[0]`.
        """
        for leaf, path in enumerate(self.leaf_paths):
            if path[0] == CAPTURED and number in (below := self.reach([leaf])):
                return self.name((*path, *below[number]))
        raise AssertionError

    @functools.cached_property
    def argument_roots(self) -> tuple[int, ...]:
        """The nodes that are arguments themselves, or stored in a partial."""
        edges = zip(self.leaf_paths, self.graph.edges, strict=True)
        return tuple(dict.fromkeys(e for path, e in edges if type(e) is int and path[0] < CAPTURED))

    def is_argument(self, number: int) -> bool:
        """Whether a node is reached from the arguments themselves, not only through what the function captures.

        Args:
          number: The number of the node.

        Returns:
          True if it is.
        """
        return any(path[0] != CAPTURED for path in self.node_paths[number])

    @functools.cached_property
    def leaf_names(self) -> list[str]:
        """What each leaf of the arguments is called, such as `args[0].layers`."""
        return [self.name(path) for path in self.leaf_paths]

    @functools.cached_property
    def arguments(self) -> tuple[list[Argument], dict[str, Argument]]:
        """The positional and the keyword arguments."""
        args, kwargs = self.graph.treedef.children()[:2]
        _, names = kwargs.node_data()
        start, positional, named = 0, [], {}
        for position, treedef in enumerate(args.children()):
            leaves = range(start, start := start + treedef.num_leaves)
            positional.append(Argument(f"args[{position}]", treedef, leaves))
        for name, treedef in zip(names, kwargs.children(), strict=True):
            leaves = range(start, start := start + treedef.num_leaves)
            named[name] = Argument(f"kwargs[{name!r}]", treedef, leaves)
        return positional, named

    @functools.cached_property
    def node_paths(self) -> dict[int, tuple[Path, ...]]:
        """Every path of each node, from `(args, kwargs)` down."""
        return {number: tuple(paths) for number, paths in find_all_paths(self.graph).items()}

    def path_of(self, number: int) -> str:
        """The first path of a node in words, such as `args[0].encoder.w`.

        Args:
          number: The number of the node.

        Returns:
          The path.
        """
        return self.name(self.node_paths[number][0])

    def arrays_by_key(self, number: int) -> list[tuple[int, Any]]:
        """Position in `arrays`, and key, of each bare array that a node holds.

        Args:
          number: The number of the node.

        Returns:
          Pairs of position and key.
        """
        spec = self.graph.specs[number]
        keys = [k for k, e in zip(spec.keys, spec.edges, strict=True) if e is ARRAY]
        return list(zip(self.node_arrays.get(number, ()), keys, strict=True))

    def array_name(self, place: int) -> str:
        """The path of a bare array in words.

        Args:
          place: Its position in `arrays`.

        Returns:
          The path.
        """
        for leaf, i in self.leaf_arrays.items():
            if i == place:
                return self.leaf_names[leaf]
        found = ((n, key) for n in self.node_arrays for i, key in self.arrays_by_key(n) if i == place)
        number, key = next(found)
        return self.name((*self.node_paths[number][0], key))

    def reach(self, leaves: Sequence[int]) -> dict[int, Path]:
        """The nodes that some leaves of the arguments reach.

        Args:
          leaves: Positions in `graph.edges`.

        Returns:
          The path from the leaf by number of the node.
        """
        starts = [(self.graph.edges[leaf], None) for leaf in leaves]
        return {number: path for number, (_, path) in first_paths(self.graph.specs, starts).items()}

    def parts_of(self, leaf: int) -> list[tuple[Path, int | None, int | None]]:
        """The Variables and bare arrays that one leaf of the arguments reaches, in attribute order.

        Args:
          leaf: The leaf.

        Returns:
          `(path, number, None)` for each Variable and `(path, None, place)` for each bare array.
        """
        parts: list[tuple[Path, int | None, int | None]] = []
        reached, stack = set(), [(self.graph.edges[leaf], (), self.leaf_arrays.get(leaf))]
        while stack:
            edge, path, place = stack.pop()
            if edge is ARRAY:
                parts.append((path, None, place))
            elif type(edge) is int and edge not in reached:
                reached.add(edge)
                spec = self.graph.specs[edge]
                if spec.kind is VARIABLE:
                    parts.append((path, edge, None))
                places = iter(self.node_arrays.get(edge, ()))
                stack += [
                    (e, (*path, k), next(places) if e is ARRAY else None)
                    for k, e in zip(spec.keys, spec.edges, strict=True)
                ][::-1]
        return parts

    def metadata_of(self, number: int) -> Metadata:
        """The metadata of a Variable, without entries that have an array, a Variable or a module in them.

        Args:
          number: The Variable's number.

        Returns:
          The metadata.
        """
        if not self.graph.specs[number].keys:
            return self.graph.specs[number].extra
        hole = object()
        _, merged = merge_all(self.graph, [hole] * len(self.variables), [hole] * self.n_arrays, None)
        given = merged.objects[number].get_metadata()
        leaves = {name: jax.tree.leaves(x, is_leaf=is_object) for name, x in given.items()}

        def is_part(x: Any) -> bool:
            return x is hole or is_object(x)

        static = [name for name in given if not any(is_part(x) or leads_to(x, is_part) for x in leaves[name])]
        return Metadata.of({name: given[name] for name in static})

    def arrays_of(self, leaves: Sequence[int]) -> list[int]:
        """The bare arrays that some leaves of the arguments are or reach.

        Args:
          leaves: Positions in `graph.edges`.

        Returns:
          Their positions in `arrays`.
        """
        own = [self.leaf_arrays[leaf] for leaf in leaves if leaf in self.leaf_arrays]
        return own + [i for number in self.reach(leaves) for i in self.node_arrays.get(number, ())]


def name_argument(path: Path, names: Sequence[str] = ()) -> str:
    """A path from the top of what is split down, in words; `names` are those of the positional arguments."""
    position, *rest = path
    if position == CAPTURED and rest:
        return format_path(rest[1:], str(rest[0]))
    if position == 0 and names and rest:
        return format_path(rest[1:], str(names[rest[0]]))
    which = (
        "args", "kwargs", "partial", "captured", "the array leaves of captured modules", "the way to captured modules"
    )[position]  # fmt: skip
    return format_path(rest[1:], f"{which}[{rest[0]!r}]") if rest else which
