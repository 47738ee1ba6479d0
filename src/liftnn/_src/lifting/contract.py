"""The contract between a transform and the engine: a pure function, the plan of its arguments, and its result.

A transform gets a pure function of a list of dynamic leaves, and a `Plan` that describes each leaf. It applies its JAX
transform and returns a function of the same kind. A `Result` is a list of leaves with their static description.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax

from liftnn._src.graph.description import GraphSpec, find_all_paths, find_leaves, first_paths
from liftnn._src.graph.kinds import VARIABLE, is_object
from liftnn._src.graph.merge import GraphDelta, merge_all
from liftnn._src.graph.slots import ARRAY, ROOT, Slot
from liftnn._src.trees import Path, an, children_with_leaves, format_path
from liftnn._src.variables.holding import leads_to
from liftnn._src.variables.metadata import Metadata
from liftnn._src.variables.variable import Variable

STORED, CAPTURED = 2, 3
"""Positions in the flattened tree: the arguments stored in a partial, and the captured modules."""


class Result(NamedTuple):
    """The result of a pure function: a JAX pytree whose static part is `change`.

    Args:
      leaves: The dynamic leaves in the order of `slots`: array leaves of the output first, then written and new ones.
      change: The static description of what was returned, created and changed.
      extra: An additional result of the transform, such as gradients or an error; None if there is none.

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
        """The numbers of the input nodes that were written or changed."""
        return [*self.change.written, *(number for number, _ in self.change.changed)]

    def write(self, values: Mapping[Slot, Any]) -> Result:
        """Return the result with some leaves replaced, or values of further Variables added.

        Args:
          values: The leaves by slot. The result must already have the slot, unless it is the value of a Variable.

        Returns:
          The new result.

        Raises:
          KeyError: If the result does not have the slot of an array leaf.
        """
        written = {slot.node for slot in values.keys() - set(self.slots)}
        change = self.change._replace(written=tuple(sorted({*self.change.written, *written})))
        return result_of(change, {**self.by_slot, **values}, self.extra)


def result_of(change: GraphDelta, by_slot: Mapping[Slot, Any], extra: Any = None) -> Result:
    """Build a result from its static part and a mapping that has at least its slots."""
    return Result([by_slot[slot] for slot in change.slots], change, extra)


class Argument(NamedTuple):
    """One argument of the call, and its leaves.

    Args:
      name: Its name in messages, such as `args[0]`.
      treedef: Its tree.
      leaves: The positions of its leaves in `Plan.graph.edges`.
    """

    name: str
    treedef: Any
    leaves: range


class Plan:
    """The static description of the arguments of a call: types, paths and slots, without live objects.

    Leaves have the order of `slots`: the values of Variables, array leaves among the arguments, array leaves of nodes.

    Args:
      graph: The structure of args and kwargs, then (if any) stored arguments, captured modules, constants, containers.
      names: Names of the positional arguments for messages. The default, none, is `args[0]` and so on.

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
        self.variables = graph.variables
        """The numbers of the Variables; their values come first among the leaves."""
        self.withheld: Mapping[int, str] = {}  # see `Spread.withheld`
        self.sliced: Collection[int] = ()  # if something is withheld, the nodes below arguments with an axis
        self.unreturnable = ""  # a returned leaf that JAX does not take, see `explain_valueless`

    @functools.cached_property
    def index(self) -> dict[Slot, int]:
        """The position of each slot among the leaves."""
        return {slot: i for i, slot in enumerate(self.slots)}

    @functools.cached_property
    def types(self) -> list[type]:
        """The class of each leaf's Variable; `jax.Array` for an array leaf."""
        types = [self.graph.specs[number].type for number in self.variables]
        return types + [jax.Array] * (len(self.slots) - len(types))

    def by_slot(self, leaves: Sequence[Any]) -> dict[Slot, Any]:
        """Map each slot to its leaf.

        Args:
          leaves: The leaves, in the order of `slots`.

        Returns:
          The leaves by slot.
        """
        return dict(zip(self.slots, leaves, strict=True))

    def in_order(self, by_slot: Mapping[Slot, Any]) -> list[Any]:
        """List the leaves in the order of `slots`: the inverse of `by_slot`.

        Args:
          by_slot: The leaves by slot; it may have further slots.

        Returns:
          The leaves, in the order of `slots`.
        """
        return [by_slot[slot] for slot in self.slots]

    def name(self, slot: Slot) -> str:
        """Return the attribute path of a leaf, such as `args[0].encoder.w`.

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
        """Return the attribute path of a leaf with the class of its Variable, such as `args[0].encoder.w (a Param)`.

        Args:
          slot: The slot.

        Returns:
          The path; for an array leaf without a class.
        """
        is_value = self.index[slot] < len(self.variables)
        return self.typed_path(slot.node) if is_value else self.name(slot)

    def path_name(self, path: Path) -> str:
        """Format a path that starts at `(args, kwargs)`.

        Args:
          path: The path.

        Returns:
          The text, such as `args[0].encoder.w`.
        """
        return name_argument(path, self.names)

    @functools.cached_property
    def leaf_paths(self) -> list[Path]:
        """The path of each leaf of the arguments."""
        return list(self.graph.paths)

    @functools.cached_property
    def captured(self) -> dict[int, Path]:
        """The nodes that captured modules reach, by number, with the path from the captured module."""
        return self.reach([i for i, path in enumerate(self.leaf_paths) if path[0] == CAPTURED])

    def captured_name(self, number: int) -> str:
        """Return the name of a captured node in the code: a variable name, and a path from there.

        Args:
          number: The number of the node.

        Returns:
          The name, such as `model.layers[0]`.
        """
        for leaf, path in enumerate(self.leaf_paths):
            if path[0] == CAPTURED and number in (below := self.reach([leaf])):
                return self.path_name((*path, *below[number]))
        raise AssertionError

    @functools.cached_property
    def argument_roots(self) -> tuple[int, ...]:
        """The nodes that are themselves arguments, or stored in a partial."""
        edges = zip(self.leaf_paths, self.graph.edges, strict=True)
        return tuple(dict.fromkeys(e for path, e in edges if type(e) is int and path[0] < CAPTURED))

    @functools.cached_property
    def passed(self) -> frozenset[int]:
        """The nodes that arguments reach, by number, and not only captured modules."""
        found = (n for n, paths in self.node_paths.items() if any(path[0] != CAPTURED for path in paths))
        return frozenset(found)

    @functools.cached_property
    def leaf_names(self) -> list[str]:
        """The name of each leaf of the arguments, such as `args[0].layers`."""
        return [self.path_name(path) for path in self.leaf_paths]

    @functools.cached_property
    def arguments(self) -> tuple[list[Argument], dict[str, Argument]]:
        """The positional and the keyword arguments."""
        args, kwargs = self.graph.treedef.children()[:2]
        _, names = kwargs.node_data()
        pairs = zip(names, children_with_leaves(kwargs, args.num_leaves), strict=True)
        return (
            [Argument(f"args[{i}]", *part) for i, part in enumerate(children_with_leaves(args))],
            {name: Argument(f"kwargs[{name!r}]", *part) for name, part in pairs},
        )

    @functools.cached_property
    def node_paths(self) -> dict[int, tuple[Path, ...]]:
        """All paths of each node, starting at `(args, kwargs)`."""
        return {number: tuple(paths) for number, paths in find_all_paths(self.graph).items()}

    def path_of(self, number: int) -> str:
        """Return the first path of a node, such as `args[0].encoder.w`.

        Args:
          number: The number of the node.

        Returns:
          The path.
        """
        return self.path_name(self.node_paths[number][0])

    def typed_path(self, number: int) -> str:
        """Return the first path of a node with its class, such as `args[0].encoder (a Linear)`.

        Args:
          number: The number of the node.

        Returns:
          The path.
        """
        return f"{self.path_of(number)} ({an(self.graph.specs[number].type)})"

    def reach(self, leaves: Sequence[int]) -> dict[int, Path]:
        """Find the nodes that some leaves of the arguments reach.

        Args:
          leaves: Positions in `graph.edges`.

        Returns:
          The path from the leaf to each node, by the number of the node.
        """
        starts = [(self.graph.edges[leaf], None) for leaf in leaves]
        return {number: path for number, (_, path) in first_paths(self.graph.specs, starts).items()}

    def slots_below(self, leaf: int) -> dict[Path, Slot]:
        """Find the dynamic leaves that one leaf of the arguments is or reaches, in attribute order.

        Args:
          leaf: The leaf of the arguments.

        Returns:
          The slot at each path below that leaf.
        """
        return find_leaves(self.graph.specs, [(Slot(ROOT, leaf), (), self.graph.edges[leaf])])

    def slots_of(self, leaves: Sequence[int]) -> list[Slot]:
        """Find the dynamic leaves that some leaves of the arguments are or reach.

        Args:
          leaves: Positions in `graph.edges`.

        Returns:
          Their slots.
        """
        reached, positions = self.reach(leaves), set(leaves)
        return [s for s in self.slots if s.node in reached or (s.node == ROOT and s.key in positions)]

    def metadata_of(self, number: int) -> Metadata:
        """Return the metadata of a Variable, without entries that contain an array, a Variable or a module.

        Args:
          number: The Variable's number.

        Returns:
          The metadata.
        """
        if not self.graph.specs[number].keys:
            return self.graph.specs[number].extra
        hole = object()
        _, merged = merge_all(self.graph, [hole] * len(self.slots), None)
        metadata = merged.objects[number].get_metadata()
        leaves = {name: jax.tree.leaves(x, is_leaf=is_object) for name, x in metadata.items()}

        def is_part(x: Any) -> bool:
            return x is hole or is_object(x)

        dynamic = {name for name in leaves if any(is_part(x) or leads_to(x, is_part) for x in leaves[name])}
        return Metadata.of({name: x for name, x in metadata.items() if name not in dynamic})


PureFunction = Callable[[Sequence[Any]], Result]
"""A function of dynamic leaves, in the order of `Plan.slots`."""


class VariableHooks(Protocol):
    """Callbacks of a transform on the Variables, before and after the user's function runs."""

    def before(self, variables: Sequence[Variable[Any]]) -> None:
        """Run before the user's function.

        Args:
          variables: The copies of the arguments' Variables, in the order of `Plan.variables`.
        """

    def after(
        self, result: Result, variables: Sequence[Variable[Any]], created: Mapping[int, Variable[Any]]
    ) -> None:
        """Run after the user's function; changes that it makes to the Variables are part of the result.

        Args:
          result: The preliminary result of the function.
          variables: As in `before`.
          created: The Variables created by the function, by number.
        """


class Purified(Protocol):
    """The pure function that `bind` gets for a user's function."""

    def __call__(
        self, leaves: Sequence[Any], hooks: VariableHooks | None = None, resume_from: Plan | None = None
    ) -> Result:
        """Call the function with copies of the modules; `resume_from` is the plan after an earlier call, if any."""
        ...


def name_argument(path: Path, names: Sequence[str] = ()) -> str:
    """Format a path that starts at the top of the flattened tree; `names` are those of the positional arguments."""
    position, *rest = path
    if position in (CAPTURED, CAPTURED + 2) and rest:
        return format_path(rest[1:], str(rest[0]))
    if position == 0 and names and rest:
        name = str(names[rest[0]])  # empty for the module that packs functions
        return format_path(rest[1:], name) if name or rest[1:] else ""
    which = (
        "args", "kwargs", "partial", "captured", "the array leaves of captured modules", "the captured containers",
    )[position]  # fmt: skip
    return format_path(rest[1:], f"{which}[{rest[0]!r}]") if rest else which
