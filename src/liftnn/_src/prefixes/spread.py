"""The prefix (axis or sharding) of each dynamic leaf, of the arguments and of the result of a call.

A `Spread` starts from the prefix of each leaf of the arguments (`add_leaf`). The prefix of a module applies to every
node that the module reaches; a `ByFilter` prefix (such as `StateAxes`) is resolved for each Variable by its path, type
and metadata. A Variable that is reached with two different prefixes raises an AliasingError. `Spread.after` continues
from the known nodes to the nodes created by a call, and `result_prefixes` combines both with the prefix of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from liftnn import errors
from liftnn._src.graph.description import NodeSpec
from liftnn._src.graph.kinds import VARIABLE
from liftnn._src.graph.merge import GraphDelta
from liftnn._src.graph.slots import OUTPUT, ROOT, Slot, array_keys
from liftnn._src.lifting.after import output_names, specs_after
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.prefixes.prefix import ByFilter, Prefix, broadcast_over
from liftnn._src.trees import Path, format_path
from liftnn._src.variables import frames
from liftnn._src.variables.variable import make_variable


class Entry(NamedTuple):
    """The prefix with which a node or a leaf of a tree was first reached, and its path from a root."""

    prefix: Prefix
    root: str
    path: Path = ()


class Spread:
    """The prefix of every node, propagated from the roots down.

    Args:
      specs: Node specs by number.
    """

    def __init__(self, specs: Sequence[NodeSpec]):
        self.specs = specs
        self.settled = 0
        """Nodes with a number below this one keep their prefix."""
        self.entries: dict[int, Entry] = {}
        """How each node was reached, by node number."""
        self._leaves: dict[Slot, Entry] = {}
        """The entries of the leaves of a tree, by slot."""
        self._seen: set[tuple[int, Any]] = set()

    def add_leaf(self, slot: Slot, edge: Any, prefix: Prefix, root: str) -> None:
        """Assign a prefix to a leaf of a tree, and to every node that it reaches.

        Args:
          slot: The slot of the leaf.
          edge: Its edge.
          prefix: The prefix.
          root: The name of the leaf in error messages.

        Raises:
          AliasingError: If a Variable or array leaf already has another prefix; the message names both paths.
        """
        self._leaves[slot] = Entry(prefix, root)
        self._add(edge, prefix, root, ())

    def _add(self, edge: Any, prefix: Prefix, root: str, path: Path) -> None:
        """Assign a prefix to every node that an edge reaches."""
        stack: list[tuple[Any, Path]] = [(edge, path)]
        while stack:
            number, path = stack.pop()
            if type(number) is not int or number < self.settled or (number, prefix) in self._seen:
                continue
            self._seen.add((number, prefix))
            entry = Entry(prefix, root, path)
            first = self.entries.setdefault(number, entry)
            spec = self.specs[number]
            if first is not entry:
                self._check(spec, first, entry)
            if spec.edges:
                pairs = zip(spec.keys, spec.edges, strict=True)
                stack += [(e, (*path, k)) for k, e in pairs if type(e) is int][::-1]

    def after(self, plan: Plan, change: GraphDelta) -> Spread:
        """Return the prefixes after a call: known nodes keep theirs and pass them on to the new nodes below them."""
        spread = Spread(specs_after(plan, change))
        spread.entries, spread._seen = dict(self.entries), set(self._seen)
        for number, spec in change.changed:
            if number in self.entries:
                prefix, root, path = self.entries[number]
                for key, edge in zip(spec.keys, spec.edges, strict=True):
                    spread._add(edge, prefix, root, (*path, key))
        return spread

    def of(self, slot: Slot, x: Any) -> Prefix:
        """Return the prefix of a dynamic leaf; a `ByFilter` is resolved by path, type, metadata and value.

        Args:
          slot: The slot of the leaf.
          x: The leaf.
        """
        if slot in self._leaves:
            prefix, root, _ = self._leaves[slot]
            return prefix.of((), x, root) if isinstance(prefix, ByFilter) else prefix
        return _resolve(self.specs[slot.node], self.entries[slot.node], slot.key, x)

    def of_all(self, slots: Sequence[Slot], leaves: Sequence[Any]) -> list[Prefix]:
        """Return the prefix of each of several dynamic leaves."""
        return [self.of(slot, x) for slot, x in zip(slots, leaves, strict=True)]

    def _check(self, spec: NodeSpec, first: Entry, second: Entry) -> None:
        """Raise if a Variable, or a node with array leaves, has two different prefixes."""
        keys = [None] if spec.kind is VARIABLE else array_keys(spec)
        one, two = ([_resolve(spec, entry, key) for key in keys] for entry in (first, second))
        if one != two:
            a, b = (format_path(e.path, e.root) for e in (first, second))
            raise errors.AliasingError(
                f"{a} and {b} are the same {spec.type.__name__}, but they have different prefixes: {_words(one)} and "
                f"{_words(two)}."
            )


def _resolve(spec: NodeSpec, entry: Entry, key: Any, x: Any = None) -> Prefix:
    """Return the prefix of a Variable that holds `x`, or of an array leaf `x` that a node holds under a key."""
    prefix, root, path = entry
    if not isinstance(prefix, ByFilter):
        return prefix
    if spec.kind is VARIABLE and key is None:
        return prefix.of(path, make_variable(spec.type, x, spec.extra, frames.owner_now()), root)
    return prefix.of((*path, key), x, root)


def _words(prefixes: Sequence[Prefix]) -> str:
    """Describe the prefixes of a node for an error message."""
    return repr(prefixes[0] if len({*prefixes}) == 1 else tuple(prefixes))


def spread_arguments(plan: Plan, leaf_prefixes: Sequence[Prefix]) -> Spread:
    """Return the prefixes of all nodes that the arguments reach.

    Args:
      plan: The arguments.
      leaf_prefixes: The prefix of each leaf of the arguments.

    Returns:
      The prefixes.

    Raises:
      AliasingError: If one Variable is reached with two prefixes.
    """
    spread = Spread(plan.graph.specs)
    pairs = zip(plan.graph.edges, leaf_prefixes, plan.leaf_names, strict=True)
    for i, (edge, prefix, name) in enumerate(pairs):
        spread.add_leaf(Slot(ROOT, i), edge, prefix, name)
    return spread


def result_prefixes(
    plan: Plan,
    before: Spread,
    given: Sequence[Prefix],
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
      given: The prefix of each input leaf of the function.
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
        after.add_leaf(Slot(OUTPUT, i), edge, prefix, name)
    written = {Slot(n): given[plan.index[Slot(n)]] for n in change.written}
    pairs = zip(result.slots, result.leaves, strict=True)
    return [written[slot] if slot in written else after.of(slot, x) for slot, x in pairs]
