"""Reductions of the values that batch elements write to shared Variables.

A `Reduction` is a prefix: the Variable has no axis as an input; as an output it is stacked along axis 0 and then
reduced.
"""

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

_REDUCTION_REMEDY = (
    "Pass a function of an array and a keyword `axis` for each filter, such as {liftnn.BatchStat: jnp.mean}."
)


class Reduction(NamedTuple):
    """The prefix of a shared Variable with new values that are reduced over the batch elements.

    Args:
      function: A function of an array and a keyword `axis`.
    """

    function: Callable[..., Any]

    def __repr__(self) -> str:
        return f"None, reduced by {getattr(self.function, '__name__', 'a function')}"


class Reduced(ByFilter):
    """A prefix with a reduction for some of the Variables without an axis.

    Args:
      prefix: The axes.
      reductions: Pairs of predicate and reduction; the first match is used.
    """

    def __init__(self, prefix: Prefix, reductions: Sequence[tuple[Any, Reduction]]):
        self.prefix = prefix
        self.reductions = reductions
        self.is_by_path = isinstance(prefix, ByFilter)
        axes = prefix.pairs if isinstance(prefix, ByFilter) else ((None, prefix),)
        self.pairs = (*axes, *reductions)

    def of(self, path: Path, x: Any, root: str = "") -> Prefix:
        """Return the axis or reduction of a Variable, or the axis of an array leaf."""
        axis = self.prefix.of(path, x, root) if isinstance(self.prefix, ByFilter) else self.prefix
        if axis is not None or not isinstance(x, Variable) or isinstance(x, RngState):
            return axis  # a stream's count is the same in all batch elements and must stay an integer
        return next((r for predicate, r in self.reductions if predicate(path, x)), None)

    def __repr__(self) -> str:
        return repr(self.prefix)


def to_reductions(reduce_writes: Mapping[Any, Callable[..., Any]] | None) -> list[tuple[Any, Reduction]]:
    """Convert the option `reduce_writes` to pairs of predicate and reduction.

    Args:
      reduce_writes: A mapping from filters to functions, or None for no reductions.

    Returns:
      The pairs.

    Raises:
      ArgumentTypeError: If it is not a mapping, or if a value is not a function.
      FilterError: If a key is not a filter.
    """
    if reduce_writes is None:
        return []
    if not isinstance(reduce_writes, Mapping):
        raise errors.ArgumentTypeError(
            f"`reduce_writes` must be a mapping from filters to functions, not {an(type(reduce_writes))}.",
            _REDUCTION_REMEDY,
        )
    for function in reduce_writes.values():
        if not callable(function):
            raise errors.ArgumentTypeError(
                f"`reduce_writes` contains {function!r}, which is not a function.", _REDUCTION_REMEDY
            )
    return [(to_predicate(f), Reduction(function)) for f, function in reduce_writes.items()]


def with_reductions(prefix: Prefix, reductions: Sequence[tuple[Any, Reduction]]) -> Prefix:
    """Add reductions to a prefix; return the prefix itself if there are none."""
    return Reduced(prefix, reductions) if reductions else prefix


def input_axes(prefixes: Sequence[Prefix]) -> list[Prefix]:
    """Return the input axes: a reduced Variable has none."""
    return [None if isinstance(p, Reduction) else p for p in prefixes]


def output_axes(prefixes: Sequence[Prefix]) -> list[Prefix]:
    """Return the output axes: values to be reduced are stacked along axis 0."""
    return [0 if isinstance(p, Reduction) else p for p in prefixes]


def reduce_group(values: list[Any], prefix: Prefix) -> list[Any]:
    """Reduce the values with a prefix if the prefix is a reduction."""
    if not isinstance(prefix, Reduction):
        return values
    return jax.tree.map(functools.partial(prefix.function, axis=0), values)
