"""The contract between a transform and the engine: a pure function, the plan of its arguments, and its result.

A transform gets a pure function of dynamic leaves and a `Plan`, which says what each leaf is. It returns a function of
the same kind. The `Result` has leaves again, and a static part, which says what each of those is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax

from liftnn._src.graph.description import GraphSpec, find_all_paths, find_leaves, first_paths
from liftnn._src.graph.kinds import VARIABLE, is_object
from liftnn._src.graph.merge import GraphDelta, merge_all
from liftnn._src.graph.slots import ARRAY, ROOT, Slot
from liftnn._src.trees import Path, an, format_path
from liftnn._src.variables.holding import leads_to
from liftnn._src.variables.metadata import Metadata
from liftnn._src.variables.variable import Variable

STORED, CAPTURED = 2, 3
"""Positions in the tree that is flattened: the arguments stored in a partial, and what the function captures."""


class Result(NamedTuple):
    """The result of a pure function: a JAX pytree whose static part is `change`.

    Args:
      leaves: The dynamic leaves that the function returned, wrote and made, in the order of `slots`: the array leaves
        of the output come first.
      change: The static description of what was returned, made and changed.
      extra: What the transform itself produced: gradients, an error; None if nothing.

    Example:
      >>> import liftnn
      >>> def count_writes(f):
      ...   def bind(plan, pure):
      ...     def call(leaves):
      ...       result = pure(leaves)
      ...       return result._replace(extra=len(result.change.written))
      ...     return call
      ...   return liftnn.lift(f, bind=bind, finish=lambda output, extra: extra)
      >>> def double_bias(layer):
      ...   layer.bias.value = 2 * layer.bias
      >>> count_writes(double_bias)(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))
      1
    """

    leaves: list[Any]
    change: GraphDelta
    extra: Any = None

    @property
    def slots(self) -> list[Slot]:
        """The slot of each leaf."""
        return self.change.slots

    @property
    def by_slot(self) -> dict[Slot, Any]:
        """The leaves by slot."""
        return dict(zip(self.slots, self.leaves, strict=True))

    @property
    def output(self) -> list[Any]:
        """The array leaves of the output."""
        return self.leaves[: sum(edge is ARRAY for edge in self.change.edges)]

    @property
    def written(self) -> list[int]:
        """The numbers of the known nodes that were written or changed."""
        return [*self.change.written, *(number for number, _ in self.change.changed)]

    def write(self, values: Mapping[Slot, Any]) -> Result:
        """The result with other leaves; of Variables that were not written, too.

        Args:
          values: The leaves by slot; array leaves only where the result has one already.

        Returns:
          The result.

        Raises:
          KeyError: If the result has no such slot, and it is none of a Variable's value.
        """
        written = {slot.node for slot in values.keys() - set(self.slots)}
        change = self.change._replace(written=tuple(sorted({*self.change.written, *written})))
        return result_of(change, {**self.by_slot, **values}, self.extra)


def result_of(change: GraphDelta, by_slot: Mapping[Slot, Any], extra: Any = None) -> Result:
    """The result with a static part, from its leaves by slot; there may be more of them."""
    return Result([by_slot[slot] for slot in change.slots], change, extra)


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
    """What a transform may know about the arguments before it runs: types, paths, slots; no live object.

    A pure function takes one list of dynamic leaves; `slots` says what each of them is: first the value of each
    Variable, then the array leaves among the arguments, then those that nodes hold.

    Args:
      graph: The description of `(args, kwargs)`; where there are some, followed by the arguments stored in a partial,
        the captured modules by name, what of those is a constant, and how they are held.
      names: What messages call the positional arguments. The default, none, is `args[0]` and so on.

    Example:
      >>> import liftnn
      >>> def show_leaves(f):
      ...   def bind(plan, pure):
      ...     print([plan.name(slot) for slot in plan.slots])
      ...     return pure
      ...   return liftnn.lift(f, bind=bind)
      >>> show_leaves(lambda layer, x: None)(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), 1.0)
      ['args[0].kernel', 'args[0].bias', 'args[1]']
    """

    def __init__(self, graph: GraphSpec, names: Sequence[str] = ()):
        self.graph = graph
        self.names = names
        self.slots = graph.slots
        self.variables = tuple([i for i, spec in enumerate(graph.specs) if spec.kind is VARIABLE])
        """The numbers of the Variables, whose values come first among the leaves."""

    @functools.cached_property
    def index(self) -> dict[Slot, int]:
        """The position of each slot among the leaves."""
        return {slot: i for i, slot in enumerate(self.slots)}

    @functools.cached_property
    def types(self) -> list[type]:
        """For each leaf the class of its Variable; `jax.Array` for an array leaf."""
        types = [self.graph.specs[number].type for number in self.variables]
        return types + [jax.Array] * (len(self.slots) - len(types))

    def by_slot(self, leaves: Sequence[Any]) -> dict[Slot, Any]:
        """Looks up leaves by slot.

        Args:
          leaves: The leaves, in the order of `slots`.

        Returns:
          A dictionary with one entry for each.
        """
        return dict(zip(self.slots, leaves, strict=True))

    def in_order(self, by_slot: Mapping[Slot, Any]) -> list[Any]:
        """The inverse of `by_slot`.

        Args:
          by_slot: The leaves by slot; there may be more than `slots`.

        Returns:
          The leaves, in the order of `slots`.
        """
        return [by_slot[slot] for slot in self.slots]

    def name(self, slot: Slot) -> str:
        """The attribute path of a leaf, such as `args[0].encoder.w`.

        Args:
          slot: The slot.

        Returns:
          The path.
        """
        if slot.node == ROOT:
            return self.leaf_names[slot.key]
        is_value = self.graph.specs[slot.node].kind is VARIABLE and slot.key is None
        path = self.node_paths[slot.node][0]
        return self.path_name(path if is_value else (*path, slot.key))

    def typed_name(self, slot: Slot) -> str:
        """The attribute path of a leaf with the class of its Variable, such as `args[0].encoder.w (a Param)`.

        Args:
          slot: The slot.

        Returns:
          The path; that of an array leaf alone.
        """
        is_value = self.index[slot] < len(self.variables)
        return self.typed_path(slot.node) if is_value else self.name(slot)

    def path_name(self, path: Path) -> str:
        """A path from `(args, kwargs)` down, in words.

        Args:
          path: The path.

        Returns:
          For example `args[0].encoder.w`.
        """
        return name_argument(path, self.names)

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
                return self.path_name((*path, *below[number]))
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
        return [self.path_name(path) for path in self.leaf_paths]

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
        return self.path_name(self.node_paths[number][0])

    def typed_path(self, number: int) -> str:
        """The first path of a node with its class, such as `args[0].encoder (a Linear)`.

        Args:
          number: The number of the node.

        Returns:
          The path.
        """
        return f"{self.path_of(number)} ({an(self.graph.specs[number].type)})"

    def reach(self, leaves: Sequence[int]) -> dict[int, Path]:
        """The nodes that some leaves of the arguments reach.

        Args:
          leaves: Positions in `graph.edges`.

        Returns:
          The path from the leaf by number of the node.
        """
        starts = [(self.graph.edges[leaf], None) for leaf in leaves]
        return {number: path for number, (_, path) in first_paths(self.graph.specs, starts).items()}

    def slots_below(self, leaf: int) -> dict[Path, Slot]:
        """The dynamic leaves that one leaf of the arguments is or reaches, by path, in attribute order.

        Args:
          leaf: The leaf of the arguments.

        Returns:
          The slot at each path from that leaf down.
        """
        return find_leaves(self.graph.specs, [(Slot(ROOT, leaf), (), self.graph.edges[leaf])])

    def slots_of(self, leaves: Sequence[int]) -> list[Slot]:
        """The dynamic leaves that some leaves of the arguments are or reach.

        Args:
          leaves: Positions in `graph.edges`.

        Returns:
          Their slots.
        """
        reached, own = self.reach(leaves), set(leaves)
        return [s for s in self.slots if s.node in reached or (s.node == ROOT and s.key in own)]

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
        _, merged = merge_all(self.graph, [hole] * len(self.slots), None)
        given = merged.objects[number].get_metadata()
        leaves = {name: jax.tree.leaves(x, is_leaf=is_object) for name, x in given.items()}

        def is_part(x: Any) -> bool:
            return x is hole or is_object(x)

        static = [name for name in given if not any(is_part(x) or leads_to(x, is_part) for x in leaves[name])]
        return Metadata.of({name: given[name] for name in static})


PureFunction = Callable[[Sequence[Any]], Result]
"""A function of dynamic leaves, in the order of `Plan.slots`."""


class VariableHooks(Protocol):
    """What a transform does to the Variables inside, before and after the user's function has run."""

    def before(self, variables: Sequence[Variable[Any]]) -> None:
        """Called before it runs.

        Args:
          variables: The copies of the argument's Variables, in the order of `Plan.variables`.
        """

    def after(
        self, result: Result, variables: Sequence[Variable[Any]], made: Mapping[int, Variable[Any]]
    ) -> None:
        """Called when it has run; what this changes is part of the result.

        Args:
          result: What the function returned, as far as it is known.
          variables: As before.
          made: The Variables made inside, by number.
        """


class Purified(Protocol):
    """The pure function of a user's function, as `bind` gets it."""

    def __call__(
        self, leaves: Sequence[Any], hooks: VariableHooks | None = None, resume_from: Plan | None = None
    ) -> Result:
        """Calls the function with copies of the modules in its arguments, or of what a call has left of them."""
        ...


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
