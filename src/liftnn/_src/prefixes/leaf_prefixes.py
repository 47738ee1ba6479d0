"""Tree prefixes, as the user gives them: from one entry for each argument, or part of one, to one for each leaf."""

from __future__ import annotations

from typing import Any

import jax

from liftnn import errors
from liftnn._src.lifting.result import Plan
from liftnn._src.prefixes.by_filter import ByFilter, Prefix
from liftnn._src.trees import broadcast_prefix


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
