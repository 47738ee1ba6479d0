"""Array leaves of captured modules: code reads them where they stand, so they are constants of what is traced."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from liftnn._src.graph.description import reach
from liftnn._src.graph.walk import Walk


class Pinned:
    """The array leaves of captured modules, for the cache key: JAX's by identity, numpy's by content.

    Args:
      arrays: The arrays.
    """

    __slots__ = ("_content", "_hash", "_references")

    def __init__(self, arrays: Sequence[Any]):
        self._references = [_reference(x) for x in arrays]
        self._content = [content_of(x) for x in arrays]
        self._hash = hash(tuple(map(id, arrays)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pinned) or self._content != other._content:
            return False
        found = [(a(), b()) for a, b in zip(self._references, other._references, strict=True)]
        return all(x is y and x is not None for x, y in found)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return "constants"


def content_of(x: Any) -> Any:
    """What tells the contents of a numpy array, which can be changed in place; None for another array."""
    return (
        (x.dtype.str, x.shape, x.tobytes()) if isinstance(x, np.ndarray) and not x.dtype.hasobject else None
    )


def _reference(x: Any) -> Callable[[], Any]:
    """Refers to an array weakly; to one that cannot be referred to, such as a tracer, not at all."""
    try:
        return weakref.ref(x)
    except TypeError:
        return lambda: None


def pin(walk: Walk, edges: Sequence[Any]) -> Pinned | None:
    """The array leaves of captured modules.

    Args:
      walk: The walk that has met them.
      edges: Their edges.

    Returns:
      The array leaves; None if there are none.
    """
    arrays = [x for number in reach(walk.finished_specs(), edges) for x in walk.arrays[number]]
    return Pinned(arrays) if arrays else None
