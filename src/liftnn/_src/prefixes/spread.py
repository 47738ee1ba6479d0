"""The prefix (axis or sharding) of each dynamic leaf, of the arguments and of the result of a call.

A `Spread` starts from the prefix of each leaf of the arguments (`add_leaf`). The prefix of a module applies to every
node that the module reaches; a `ByFilter` prefix (such as `StateAxes`) is resolved for each Variable by its path, type
and metadata. A Variable that is reached with two different prefixes raises an AliasingError. `Spread.after` continues
from the known nodes to the nodes created by a call, and `result_prefixes` combines both with the prefix of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from liftnn import errors
from liftnn._src.graph.description import NodeSpec, first_paths, reach
from liftnn._src.graph.kinds import VARIABLE
from liftnn._src.graph.merge import GraphDelta
from liftnn._src.graph.slots import OUTPUT, ROOT, Slot, array_keys
from liftnn._src.lifting.after import output_names, specs_after
from liftnn._src.lifting.arguments import Uncopied
from liftnn._src.lifting.contract import CAPTURED, Plan, Result
from liftnn._src.prefixes.prefix import ByFilter, Prefix, broadcast_over
from liftnn._src.trees import Path, format_path
from liftnn._src.variables import frames
from liftnn._src.variables.variable import make_variable


class Start:
    """A leaf of a tree, or a child of a changed node, from which a prefix spreads to all that it reaches.

    Args:
      prefix: The prefix.
      root: The name of the leaf in error messages.
      edge: The edge of the leaf or child.
      specs: Node specs by number.
      path: The path of the child below the leaf.
      leaf: The path of the leaf among the arguments and captured modules; empty for another leaf.
    """

    __slots__ = ("_paths", "edge", "leaf", "path", "prefix", "root", "specs")

    def __init__(
        self,
        prefix: Prefix,
        root: str,
        edge: Any,
        specs: Sequence[NodeSpec],
        path: Path = (),
        leaf: Path = (),
    ):
        self.leaf = leaf
        self.prefix = prefix
        self.root = root
        self.edge = edge
        self.specs = specs
        self.path = path
        self._paths: dict[int, tuple[None, Path]] | None = None

    @property
    def group(self) -> Any:
        """The same for starts that give each node that they share the same prefix."""
        by_path = isinstance(self.prefix, ByFilter) and self.prefix.is_by_path
        return (self.prefix, self.root) if by_path else self.prefix

    @property
    def is_captured(self) -> bool:
        """Whether the leaf is a captured module."""
        return bool(self.leaf) and self.leaf[0] >= CAPTURED

    def path_to(self, number: int) -> Path:
        """Return the path of a node below the leaf; only filters and error messages need it."""
        if self._paths is None:
            self._paths = first_paths(self.specs, [(self.edge, None)])
        return (*self.path, *self._paths[number][1]) if number in self._paths else self.path


class Spread:
    """The prefix of every node, propagated from the roots down.

    Args:
      specs: Node specs by number.
      unmapped: The prefix of what is not mapped. The default is None.
      none_yields: Whether the prefix None says nothing, so that another one of the same node holds. The default is
        False: the two differ.
    """

    def __init__(self, specs: Sequence[NodeSpec], unmapped: Prefix = None, none_yields: bool = False):
        self.specs = specs
        self.unmapped = unmapped
        self.none_yields = none_yields
        self.settled = 0
        """Nodes with a number below this one keep their prefix."""
        self.starts: dict[int, Start] = {}
        """From where each node was reached first, by node number."""
        self._leaves: dict[Slot, Start] = {}
        """The leaves of a tree, by slot."""
        self._seen: dict[Any, set[int]] = {}
        """The nodes that were reached with each prefix; with one that depends on the path, from each leaf."""
        self.withheld: dict[int, str] = {}
        """The nodes that a captured module reaches with another prefix than an argument, with the cause of an error."""

    def add_leaf(self, slot: Slot, start: Start) -> None:
        """Assign the prefix of a leaf of a tree to every node that it reaches.

        Args:
          slot: The slot of the leaf.
          start: The leaf.

        Raises:
          AliasingError: If a Variable or array leaf already has another prefix; the message names both paths.
        """
        self._leaves[slot] = start
        self._add(start)

    def _add(self, start: Start) -> None:
        """Assign a prefix to every node that an edge reaches."""
        seen = self._seen.setdefault(start.group, set())
        specs, starts, settled = self.specs, self.starts, self.settled
        stack = [start.edge]
        while stack:
            number = stack.pop()
            if type(number) is not int or number < settled or number in seen:
                continue
            seen.add(number)
            first = starts.setdefault(number, start)
            if first is not start and not (self.none_yields and start.prefix is None):
                starts[number] = self._check(number, first, start)
            edges = specs[number].edges
            if edges:
                stack += [e for e in edges if type(e) is int][::-1]

    def after(self, plan: Plan, change: GraphDelta) -> Spread:
        """Return the prefixes after a call: known nodes keep theirs and pass them on to the new nodes below them."""
        spread = Spread(specs_after(plan, change), self.unmapped, self.none_yields)
        spread.starts = dict(self.starts)
        spread._seen = {group: set(numbers) for group, numbers in self._seen.items()}
        for number, spec in change.changed:
            if number in self.starts:
                start = self.starts[number]
                path = start.path_to(number)
                for key, edge in zip(spec.keys, spec.edges, strict=True):
                    spread._add(Start(start.prefix, start.root, edge, spread.specs, (*path, key)))
        return spread

    def of(self, slot: Slot, x: Any) -> Prefix:
        """Return the prefix of a dynamic leaf; a `ByFilter` is resolved by path, type, metadata and value.

        Args:
          slot: The slot of the leaf.
          x: The leaf.
        """
        start = self._leaves[slot] if slot.node < 0 else self.starts[slot.node]
        prefix = start.prefix
        if not isinstance(prefix, ByFilter):
            return prefix
        return prefix.of((), x, start.root) if slot.node < 0 else self._resolve(slot.node, start, slot.key, x)

    def of_all(self, slots: Sequence[Slot], leaves: Sequence[Any]) -> list[Prefix]:
        """Return the prefix of each of several dynamic leaves."""
        return [self.of(slot, x) for slot, x in zip(slots, leaves, strict=True)]

    def _check(self, number: int, first: Start, second: Start) -> Start:
        """Return the start that gives a node its prefix; raise if a Variable or array leaf has two different ones."""
        spec = self.specs[number]
        keys = [None] if spec.kind is VARIABLE else array_keys(spec)
        one, two = ([self._resolve(number, start, key) for key in keys] for start in (first, second))
        if one != two:
            if self.none_yields and (_is_nothing(one) or _is_nothing(two)):
                return second if _is_nothing(one) else first
            for owner, part in ((first, second), (second, first)):
                if self._owns(owner, part):
                    raise frames.RetryAsCapture(owner.leaf)
            a, b = (format_path(start.path_to(number), start.root) for start in (first, second))
            if second.is_captured and not first.is_captured:
                self.withheld[number] = (
                    f"{b} was used, but it is also {a}, with the prefix {_words(one)}: here only {a} has a value."
                )
                return first
            raise errors.AliasingError(
                f"{a} and {b} are the same {spec.type.__name__}, but they have different prefixes: {_words(one)} and "
                f"{_words(two)}."
            )
        return first

    def _owns(self, owner: Start, part: Start) -> bool:
        """Return whether an argument that is not mapped leads to another argument."""
        if not owner.leaf or not part.leaf or owner.is_captured or part.is_captured:
            return False
        if owner.prefix != self.unmapped or owner.edge == part.edge:
            return False
        return part.edge in reach(self.specs, [owner.edge])

    def _resolve(self, number: int, start: Start, key: Any, x: Any = None) -> Prefix:
        """Return the prefix of a Variable that holds `x`, or of an array leaf `x` that a node holds under a key."""
        prefix = start.prefix
        if not isinstance(prefix, ByFilter):
            return prefix
        spec, path = self.specs[number], start.path_to(number)
        if spec.kind is VARIABLE and key is None:
            return prefix.of(path, make_variable(spec.type, x, spec.extra, frames.owner_now()), start.root)
        return prefix.of((*path, key), x, start.root)


def _is_nothing(prefixes: Sequence[Prefix]) -> bool:
    """Return whether all prefixes of a node are None."""
    return all(prefix is None for prefix in prefixes)


def _words(prefixes: Sequence[Prefix]) -> str:
    """Describe the prefixes of a node for an error message."""
    return repr(prefixes[0] if len({*prefixes}) == 1 else tuple(prefixes))


def spread_arguments(
    plan: Plan, leaf_prefixes: Sequence[Prefix], unmapped: Prefix = None, none_yields: bool = False
) -> Spread:
    """Return the prefixes of all nodes that the arguments reach.

    Args:
      plan: The arguments.
      leaf_prefixes: The prefix of each leaf of the arguments.
      unmapped: The prefix of what is not mapped, such as captured modules. The default is None.
      none_yields: Whether the prefix None yields to another one of the same Variable. The default is False.

    Returns:
      The prefixes.

    Raises:
      AliasingError: If one Variable is reached with two prefixes.
      RetryAsCapture: If one of them is that of an unmapped argument, and the other that of a part of it.
    """
    spread = Spread(plan.graph.specs, unmapped, none_yields)
    leaves = list(enumerate(zip(plan.graph.edges, leaf_prefixes, plan.leaf_names, strict=True)))
    if none_yields:
        leaves.sort(key=lambda leaf: leaf[1][1] is None)
    for i, (edge, prefix, name) in leaves:
        if type(edge) is Uncopied and prefix != unmapped:
            raise errors.AliasingError(
                f"{name} cannot have the prefix {prefix!r} here: a part of it is an argument of an enclosing map.",
                "Pass the part that you need, the object without an axis, or a `liftnn.clone` of it, made before the "
                "map.",
            )
        start = Start(prefix, name, edge, plan.graph.specs, leaf=plan.leaf_paths[i])
        spread.add_leaf(Slot(ROOT, i), start)
    if spread.withheld:
        plan.withheld = _with_owners(spread.withheld, plan.graph.specs)
        edges = zip(plan.graph.edges, leaf_prefixes, strict=True)
        plan.sliced = reach(plan.graph.specs, [edge for edge, prefix in edges if prefix != unmapped])
    return spread


def _with_owners(withheld: dict[int, str], specs: Sequence[NodeSpec]) -> dict[int, str]:
    """Return nodes, and all nodes that lead to them, each with the text of the node that it leads to."""
    found = dict(withheld)
    todo = list(withheld)
    owners: dict[int, list[int]] = {}
    for number, spec in enumerate(specs if withheld else ()):
        for edge in spec.edges:
            if type(edge) is int:
                owners.setdefault(edge, []).append(number)
    while todo:
        number = todo.pop()
        new = [owner for owner in owners.get(number, ()) if owner not in found]
        found |= dict.fromkeys(new, found[number])
        todo += new
    return found


def result_prefixes(
    plan: Plan,
    before: Spread,
    input_prefixes: Sequence[Prefix],
    result: Result,
    out_prefix: Prefix,
    settled: bool = False,
    adapt: Callable[[Prefix], Prefix] = lambda prefix: prefix,
) -> list[Prefix]:
    """Return the prefix of each leaf of a result.

    A leaf of a known object has the prefix of the object. A new leaf has the prefix of its container: the entry of
    `out_prefix` for a leaf of the output, or the prefix of the module that it was attached to.

    Args:
      plan: The arguments.
      before: The prefixes of the known nodes.
      input_prefixes: The prefix of each input leaf of the function.
      result: The result.
      out_prefix: A tree prefix of the output.
      settled: Whether a known object in the output keeps its own prefix, regardless of `out_prefix`. The default
        is False: the two must agree, unless the entry of `out_prefix` is None.
      adapt: Maps each entry of `out_prefix` to the prefix to use. The default is the identity.

    Returns:
      The prefixes, in the order of `Result.slots`.

    Raises:
      AliasingError: If a Variable is reached with two different prefixes.
      ArgumentError: If `out_prefix` is not a tree prefix of the output.
    """
    change = result.change
    prefixes = map(adapt, broadcast_over(out_prefix, change.treedef, "the output"))
    after = before.after(plan, change)
    for i, (edge, prefix, name) in enumerate(zip(change.edges, prefixes, output_names(change), strict=True)):
        after.settled = change.known if settled or prefix is None else 0
        after.add_leaf(Slot(OUTPUT, i), Start(prefix, name, edge, after.specs))
    written = {Slot(n): input_prefixes[plan.index[Slot(n)]] for n in change.written}
    pairs = zip(result.slots, result.leaves, strict=True)
    return [written[slot] if slot in written else after.of(slot, x) for slot, x in pairs]
