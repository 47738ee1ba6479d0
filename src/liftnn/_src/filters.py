"""Filters: which Variables (and bare arrays) of a module are meant, by type, tag, path or predicate."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Sequence
from types import EllipsisType

from liftnn import errors
from liftnn._src.trees import Path

Predicate = Callable[[Path, typing.Any], bool]
Filter: typing.TypeAlias = "type | str | Predicate | EllipsisType | bool | Sequence[Filter] | None"
"""A type, a tag, a predicate `(path, variable)`, `...` or True, None or False, or a sequence of filters."""


@dataclasses.dataclass(frozen=True, repr=False)
class OfType:
    """Matches Variables of a type, and bare arrays that are instances of it.

    Args:
      type: The class; subclasses match too.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> liftnn.OfType(liftnn.Param)((), liftnn.Param(jnp.zeros(2)))
      True
    """

    type: type

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Whether it is of the type."""
        return isinstance(x, self.type)

    def __repr__(self) -> str:
        return f"OfType({self.type.__name__})"


@dataclasses.dataclass(frozen=True)
class WithTag:
    """Matches Variables whose metadata `tag` is this one.

    Args:
      tag: The tag; a bare string as a filter means the same.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> liftnn.WithTag("lora")((), liftnn.Param(jnp.zeros(2), tag="lora"))
      True
    """

    tag: str

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Whether it has the tag."""
        get = getattr(x, "get_metadata", None)
        return get is not None and get("tag") == self.tag


@dataclasses.dataclass(frozen=True)
class PathContains:
    """Matches Variables with this key somewhere in their path.

    Args:
      key: An attribute name, dict key or list position.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> liftnn.PathContains("head")(("head", "kernel"), liftnn.Param(jnp.zeros(2)))
      True
    """

    key: typing.Any

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Whether its path has the key."""
        return any(type(k) is type(self.key) and k == self.key for k in path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PathContains) and (type(self.key), self.key) == (type(other.key), other.key)


class Any:
    """Matches what any of several filters matches.

    Args:
      *filters: The filters.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> liftnn.Any(liftnn.Param, liftnn.BatchStat)((), liftnn.BatchStat(jnp.zeros(2)))
      True
    """

    _name = "Any"

    def __init__(self, *filters: Filter):
        self.predicates = tuple(to_predicate(f) for f in filters)

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Whether one of the filters matches."""
        return any(p(path, x) for p in self.predicates)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Any) and type(self) is type(other) and self.predicates == other.predicates

    def __hash__(self) -> int:
        return hash((type(self), self.predicates))

    def __repr__(self) -> str:
        return f"{self._name}({', '.join(map(repr, self.predicates))})"


class All(Any):
    """Matches what all of several filters match.

    Args:
      *filters: The filters.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> liftnn.All(liftnn.Param, liftnn.PathContains("head"))(("body",), liftnn.Param(jnp.zeros(2)))
      False
    """

    _name = "All"

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Whether all of the filters match."""
        return all(p(path, x) for p in self.predicates)


class Not(Any):
    """Matches what a filter does not match.

    Args:
      filter: The filter.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> liftnn.Not(liftnn.Param)((), liftnn.BatchStat(jnp.zeros(2)))
      True
    """

    _name = "Not"

    def __init__(self, filter: Filter):
        super().__init__(filter)

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Whether the filter does not match."""
        return not self.predicates[0](path, x)


@dataclasses.dataclass(frozen=True)
class Everything:
    """Matches everything: what `...` and True stand for."""

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """True."""
        return True

    def __repr__(self) -> str:
        return "..."


@dataclasses.dataclass(frozen=True)
class Nothing:
    """Matches nothing: what None and False stand for."""

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """False."""
        return False

    def __repr__(self) -> str:
        return "None"


def to_predicate(filter: Filter) -> Predicate:
    """The predicate `(path, variable) -> bool` that a filter stands for.

    Args:
      filter: A type, a tag, a predicate, `...` or True, None or False, or a list or tuple of filters (any of them).

    Returns:
      The predicate.

    Raises:
      FilterError: If it is none of these.
    """
    if filter is ... or filter is True:
        return Everything()
    if filter is None or filter is False:
        return Nothing()
    if isinstance(filter, type):
        return OfType(filter)
    if isinstance(filter, str):
        return WithTag(filter)
    if isinstance(filter, (list, tuple)):
        return Any(*filter)
    if callable(filter):
        predicate: typing.Any = filter
        return predicate
    raise errors.FilterError(
        f"{filter!r} is not a filter.",
        "A filter is a type, a tag string, a predicate (path, variable), ..., None, or a list or tuple of filters.",
    )


def to_predicates(filters: Sequence[Filter]) -> list[Predicate]:
    """The predicates of several filters, of which the first match wins.

    Args:
      filters: The filters; `...` or True may only stand last.

    Returns:
      The predicates.

    Raises:
      FilterError: If a filter follows one that matches everything, or is not a filter.
    """
    predicates = [to_predicate(f) for f in filters]
    for position, predicate in enumerate(predicates[:-1]):
        if isinstance(predicate, Everything):
            raise errors.FilterError(
                f"Filter {position} of {len(filters)} matches everything, so those after it never match.",
                "Put `...` last.",
            )
    return predicates


def first_match(predicates: Sequence[Predicate], path: Path, x: typing.Any) -> int:
    """The position of the first predicate that matches, -1 if none does."""
    for position, predicate in enumerate(predicates):
        if predicate(path, x):
            return position
    return -1
