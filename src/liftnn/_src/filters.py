"""Filters: select Variables and array leaves of a module by type, tag, path or predicate."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Sequence
from types import EllipsisType

from liftnn import errors
from liftnn._src.tracebacks import warn
from liftnn._src.trees import Path, an, at_start

Predicate = Callable[[Path, typing.Any], bool]
Filter: typing.TypeAlias = type | str | Predicate | EllipsisType | bool | Sequence[typing.Any] | None
"""A type, a tag, a predicate `(path, variable)`, `...` or True, None or False, or a sequence of filters."""


@dataclasses.dataclass(frozen=True, repr=False)
class OfType:
    """Filter for Variables of a type, and for array leaves that are instances of it.

    Args:
      type: The class; subclasses match too.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> liftnn.OfType(liftnn.Param)((), liftnn.Param(jnp.zeros(2)))
      True
    """

    type: type

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Return whether `x` is of the type."""
        return isinstance(x, self.type)

    def __repr__(self) -> str:
        return f"OfType({self.type.__name__})"


@dataclasses.dataclass(frozen=True)
class WithTag:
    """Filter for Variables with a given value in their metadata entry `tag`, and for modules with that attribute `tag`.

    Args:
      tag: The tag. A string used as a filter has the same meaning.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> liftnn.WithTag("lora")((), liftnn.Param(jnp.zeros(2), tag="lora"))
      True
    """

    tag: str

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Return whether `x` has the tag."""
        if hasattr(type(x), "get_metadata"):  # of the class, since an Rngs has every attribute
            return x.get_metadata("tag") == self.tag
        tag = getattr(x, "tag", None)
        return isinstance(tag, str) and tag == self.tag


@dataclasses.dataclass(frozen=True)
class PathContains:
    """Filter for Variables with a given key anywhere in their path.

    Args:
      key: An attribute name, dict key or list position.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> liftnn.PathContains("head")(("head", "kernel"), liftnn.Param(jnp.zeros(2)))
      True
    """

    key: typing.Any

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Return whether the path has the key."""
        return any(type(k) is type(self.key) and k == self.key for k in path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PathContains) and (type(self.key), self.key) == (type(other.key), other.key)


class _Combination:
    """What the filters that combine others share."""

    def __init__(self, *filters: Filter):
        self.predicates = tuple(to_predicate(f) for f in filters)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Combination)
            and type(self) is type(other)
            and self.predicates == other.predicates
        )

    def __hash__(self) -> int:
        return hash((type(self), self.predicates))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.predicates))})"


class Any(_Combination):
    """Filter that matches if at least one of several filters matches.

    Args:
      *filters: The filters.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> liftnn.Any(liftnn.Param, liftnn.BatchStat)((), liftnn.BatchStat(jnp.zeros(2)))
      True
    """

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Return whether one of the filters matches."""
        return any(p(path, x) for p in self.predicates)


class All(_Combination):
    """Filter that matches if all of several filters match.

    Args:
      *filters: The filters.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> liftnn.All(liftnn.Param, liftnn.PathContains("head"))(("body",), liftnn.Param(jnp.zeros(2)))
      False
    """

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Return whether all of the filters match."""
        return all(p(path, x) for p in self.predicates)


class Not(_Combination):
    """Filter that matches if another filter does not match.

    Args:
      filter: The filter.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> liftnn.Not(liftnn.Param)((), liftnn.BatchStat(jnp.zeros(2)))
      True
    """

    def __init__(self, filter: Filter):
        super().__init__(filter)

    @property
    def predicate(self) -> Predicate:
        """The predicate of the other filter."""
        return self.predicates[0]

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Return whether the filter does not match."""
        return not self.predicate(path, x)


@dataclasses.dataclass(frozen=True)
class Everything:
    """Filter that matches everything; `...` and True mean the same."""

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Return True."""
        return True

    def __repr__(self) -> str:
        return "..."


@dataclasses.dataclass(frozen=True)
class Nothing:
    """Filter that matches nothing; None and False mean the same."""

    def __call__(self, path: Path, x: typing.Any) -> bool:
        """Return False."""
        return False

    def __repr__(self) -> str:
        return "None"


def to_predicate(filter: Filter) -> Predicate:
    """Return the predicate `(path, variable) -> bool` that a filter denotes.

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
    if callable(filter) and not hasattr(type(filter), "__graph_node__"):
        predicate: typing.Any = filter
        return predicate
    raise errors.FilterError(
        f"{at_start(an(type(filter))) if callable(filter) else repr(filter)} is not a filter.",
        "A filter is a type, a tag string, a predicate (path, variable), ..., None, or a list or tuple of filters.",
    )


def to_predicates(filters: Sequence[Filter]) -> list[Predicate]:
    """Return the predicates of several filters; the first match wins.

    Args:
      filters: The filters; only the last one may be `...` or True.

    Returns:
      The predicates.

    Raises:
      FilterError: If an argument is not a filter, or follows one that matches everything.
    """
    predicates = [to_predicate(f) for f in filters]
    for position, predicate in enumerate(predicates[:-1]):
        if isinstance(predicate, Everything):
            raise errors.FilterError(
                f"Filter {position} of {len(filters)} matches everything, so later filters never match.",
                "Put `...` last.",
            )
    return predicates


def first_match(predicates: Sequence[Predicate], path: Path, x: typing.Any) -> int:
    """Return the position of the first predicate that matches; -1 if none does."""
    for position, predicate in enumerate(predicates):
        if predicate(path, x):
            return position
    return -1


def check_tags(predicates: Sequence[Predicate], leaves: Sequence[tuple[Path, typing.Any]]) -> None:
    """Report string filters that match nothing: a string means a tag, and is easily taken for a name.

    Args:
      predicates: The predicates of the filters.
      leaves: Path and Variable of everything that could match.

    Raises:
      FilterError: If no Variable has the tag, and an attribute or key has that name.
    """
    for tag in {tag: None for p in predicates for tag in _tags_in(p)} if leaves else {}:
        if any(WithTag(tag)(path, x) for path, x in leaves):
            continue
        error = tag_error(WithTag(tag), [path for path, _ in leaves])
        if error is not None:
            raise error
        warn(
            f"No Variable has the tag {tag!r}, so this filter selects nothing. A string selects the Variables with "
            f"that tag, as in Param(value, tag={tag!r}).",
            errors.FilterWarning,
        )


def tag_error(predicate: Predicate, paths: Sequence[Path]) -> errors.FilterError | None:
    """Return the error for a filter that matches nothing, if a string in it is the name of an attribute or key.

    Args:
      predicate: The predicate of the filter.
      paths: The paths of everything that could match.

    Returns:
      The error; None if there is no such string.
    """
    for tag in _tags_in(predicate):
        if any(tag == key for path in paths for key in path):
            return errors.FilterError(
                f"No Variable has the tag {tag!r}: a string selects Variables by their metadata `tag`, not by name.",
                f"Pass liftnn.PathContains({tag!r}) to select what is under the attribute of that name.",
            )
    return None


def _tags_in(predicate: Predicate) -> list[str]:
    """Return the tags in a predicate and in those that it combines."""
    if isinstance(predicate, WithTag):
        return [predicate.tag]
    return (
        [tag for p in predicate.predicates for tag in _tags_in(p)]
        if isinstance(predicate, _Combination)
        else []
    )
