"""The prefix of each leaf of the arguments, from a tree prefix of the positional ones."""

from __future__ import annotations

from liftnn.axes.prefix import Prefix, broadcast_over
from liftnn.lifting.result import Plan


def leaf_prefixes(plan: Plan, prefix: Prefix, bound: bool, named: Prefix, unmapped: Prefix) -> list[Prefix]:
    """The prefix of each leaf of the arguments, from a tree prefix of the positional ones.

    Args:
      plan: The arguments.
      prefix: The tree prefix.
      bound: Whether argument 0 is the module of a bound method, which the prefix may leave out.
      named: The prefix of keyword arguments.
      unmapped: The prefix of a module that is left out, and of what a partial stores.

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
    """How many arguments a tree prefix of the positional ones has entries for; 0 if it is one for all."""
    return len(prefix) if isinstance(prefix, (tuple, list)) else 0


def positional_prefix(plan: Plan, prefix: Prefix, bound: bool, unmapped: Prefix) -> Prefix:
    """A tree prefix of the positional arguments, the module of a bound method among them; see `leaf_prefixes`."""
    prefix = tuple(prefix) if isinstance(prefix, list) else prefix
    if bound:
        explicit = len(plan.arguments[0]) - 1
        if not isinstance(prefix, tuple):
            return (unmapped,) + (prefix,) * explicit
        if len(prefix) == explicit:
            return (unmapped, *prefix)
    return prefix
