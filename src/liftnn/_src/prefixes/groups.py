"""Results grouped by prefix, for JAX transforms that need the output axes before the function has run.

The leaves of a result are returned in one list for each prefix that can occur. A static `Layout` records the group
and the position of each leaf. `group` and `ungroup` are inverses of each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax

from liftnn._src.graph.merge import GraphDelta
from liftnn._src.lifting.contract import Result
from liftnn._src.prefixes.prefix import ByFilter, Prefix


class Layout(NamedTuple):
    """The group and position of each leaf of a grouped result.

    Args:
      at: The group and the position in it, in the order of `GraphDelta.slots`.
      change: The static part of the result.
    """

    at: tuple[tuple[int, int], ...]
    change: GraphDelta


jax.tree_util.register_static(Layout)


def group(
    result: Result, prefixes: Sequence[Prefix], choices: Sequence[Prefix]
) -> tuple[list[list[Any]], Layout]:
    """Sort the leaves of a result into one list for each prefix, with those of the output last.

    JAX gives a donated buffer to the first result with its shape, so what was written comes before the output.

    Args:
      result: The result.
      prefixes: The prefix of each leaf.
      choices: All prefixes that can occur.

    Returns:
      The lists, and the layout that `ungroup` needs.
    """
    groups: list[list[Any]] = [[] for _ in choices]

    def put(x: Any, prefix: Prefix) -> tuple[int, int]:
        at = choices.index(prefix)
        groups[at].append(x)
        return at, len(groups[at]) - 1

    n = len(result.output)
    after = list(map(put, result.leaves[n:], prefixes[n:]))
    return groups, Layout((*map(put, result.leaves[:n], prefixes[:n]), *after), result.change)


def ungroup(groups: Sequence[Sequence[Any]], layout: Layout) -> Result:
    """Rebuild the result from its groups: the inverse of `group`."""
    return Result([groups[at][i] for at, i in layout.at], layout.change)


def distinct(prefixes: Iterable[Any]) -> list[Prefix]:
    """Return the distinct prefixes that can occur, including those inside a `ByFilter`; None comes last."""
    found: list[Prefix] = []
    for prefix in prefixes:
        for p in [q for _, q in prefix.pairs] if isinstance(prefix, ByFilter) else [prefix]:
            if p is not None and p not in found:
                found.append(p)
    return [*found, None]
