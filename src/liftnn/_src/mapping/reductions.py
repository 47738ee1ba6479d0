"""Writes of lanes to Variables that they share, reduced: a prefix with no axis on the way in and one on the way out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from liftnn import errors
from liftnn._src.filters import to_predicate
from liftnn._src.prefixes.prefix import ByFilter, Prefix
from liftnn._src.trees import Path, an
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import RngState

_REMEDY = "Give a function of an array and `axis` for each filter, such as {liftnn.BatchStat: jnp.mean}."


class Reduction(NamedTuple):
    """The prefix of a Variable that lanes share and whose new values are reduced over them.

    Args:
      function: Takes an array and `axis`.
    """

    function: Callable[..., Any]

    def __repr__(self) -> str:
        return f"None, reduced by {getattr(self.function, '__name__', 'a function')}"


class Reduced(ByFilter):
    """A prefix in which some Variables without an axis have a reduction instead.

    Args:
      prefix: The axes.
      reductions: Pairs of predicate and reduction; the first that matches decides.
    """

    def __init__(self, prefix: Prefix, reductions: Sequence[tuple[Any, Reduction]]):
        self.prefix = prefix
        self.reductions = reductions
        own = prefix.pairs if isinstance(prefix, ByFilter) else ((None, prefix),)
        self.pairs = (*own, *reductions)

    def of(self, path: Path, x: Any, root: str = "") -> Prefix:
        """The axis or reduction of a Variable, the axis of a bare array."""
        axis = self.prefix.of(path, x, root) if isinstance(self.prefix, ByFilter) else self.prefix
        if axis is not None or not isinstance(x, Variable) or isinstance(x, RngState):
            return axis  # a count is the same in all lanes, and must stay an integer
        return next((r for predicate, r in self.reductions if predicate(path, x)), None)

    def __repr__(self) -> str:
        return repr(self.prefix)


def to_reductions(reduce_writes: Mapping[Any, Callable[..., Any]] | None) -> list[tuple[Any, Reduction]]:
    """The option as pairs of predicate and reduction.

    Args:
      reduce_writes: A mapping of filter to function, or None for no reductions.

    Returns:
      The pairs.

    Raises:
      ArgumentTypeError: If it is no mapping, or if there is something else than a function in it.
      FilterError: If one of the filters is not a filter.
    """
    if reduce_writes is None:
        return []
    if not isinstance(reduce_writes, Mapping):
        raise errors.ArgumentTypeError(
            f"`reduce_writes` must be a mapping of filter to function, not {an(type(reduce_writes))}.",
            _REMEDY,
        )
    for function in reduce_writes.values():
        if not callable(function):
            raise errors.ArgumentTypeError(
                f"`reduce_writes` has {function!r}, which is no function.", _REMEDY
            )
    return [(to_predicate(f), Reduction(function)) for f, function in reduce_writes.items()]


def with_reductions(prefix: Prefix, reductions: Sequence[tuple[Any, Reduction]]) -> Prefix:
    """The prefix in which some Variables without an axis have a reduction instead; itself if there are none."""
    return Reduced(prefix, reductions) if reductions else prefix


def input_axes(prefixes: Sequence[Prefix]) -> list[Prefix]:
    """The axes on the way in: a reduced Variable has none."""
    return [None if isinstance(p, Reduction) else p for p in prefixes]


def output_axes(prefixes: Sequence[Prefix]) -> list[Prefix]:
    """The axes on the way out: what is to be reduced is stacked along axis 0."""
    return [0 if isinstance(p, Reduction) else p for p in prefixes]


def reduce_group(values: list[Any], prefix: Prefix) -> list[Any]:
    """The values that came out with a prefix, reduced if that is what it says."""
    if not isinstance(prefix, Reduction):
        return values
    return jax.tree.map(functools.partial(prefix.function, axis=0), values)
