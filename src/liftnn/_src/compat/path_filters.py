"""Filters that Flax NNX has besides liftnn's: by part of a key, and by whole paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from liftnn._src.filters import Filter, PathContains as OwnPathContains, Predicate, to_predicates
from liftnn._src.trees import Path


@dataclasses.dataclass(frozen=True, eq=False)
class PathContains(OwnPathContains):
    """Filter for Variables with a given key, or part of a key, anywhere in their path.

    Args:
      key: An attribute name, dict key or list position.
      exact: Whether a key of the path must be equal to `key`. The default is True; with False it need only contain it
        as text.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> nnx.PathContains("head", exact=False)(("lm_head", "kernel"), nnx.Param(jnp.zeros(2)))
      True
    """

    exact: bool = True

    def __call__(self, path: Path, x: Any) -> bool:
        """Return whether the path has the key."""
        return super().__call__(path, x) if self.exact else any(str(self.key) in str(key) for key in path)

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, PathContains) and self.exact == other.exact
        return same and super().__eq__(other)

    def __hash__(self) -> int:
        return hash((self.key, self.exact))


class PathIn:
    """Filter for Variables at one of several paths.

    Args:
      *paths: The path tuples.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> nnx.filterlib.PathIn(("head", "kernel"))(("head", "kernel"), nnx.Param(jnp.zeros(2)))
      True
    """

    def __init__(self, *paths: Path):
        self.paths = frozenset(paths)

    def __call__(self, path: Path, x: Any) -> bool:
        """Return whether the path is one of them."""
        return path in self.paths

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PathIn) and self.paths == other.paths

    def __hash__(self) -> int:
        return hash(self.paths)

    def __repr__(self) -> str:
        return f"PathIn({', '.join(sorted(map(repr, self.paths)))})"


def filters_to_predicates(filters: Sequence[Filter]) -> tuple[Predicate, ...]:
    """Return the predicates of several filters; the first match wins.

    Args:
      filters: The filters; only the last one may be `...` or True.

    Returns:
      The predicates.

    Raises:
      FilterError: If an argument is not a filter, or follows one that matches everything.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.filterlib.filters_to_predicates((nnx.Param, ...))
      (OfType(Param), ...)
    """
    return tuple(to_predicates(filters))
