"""Array leaves of captured modules: code reads them from the original modules, so they are constants of the trace."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from liftnn._src.graph.description import reach
from liftnn._src.graph.slots import Slot, array_slots
from liftnn._src.graph.walk import Walk
from liftnn._src.trees import Path


class Pinned:
    """The array leaves of captured modules, for the cache key: JAX arrays by identity, numpy arrays by content.

    Args:
      arrays: The arrays.
      slots: Their slots.
    """

    __slots__ = ("_content", "_hash", "_references", "_slots")

    def __init__(self, arrays: Sequence[Any], slots: Sequence[Slot]):
        self._slots = slots
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

    def describe_parts(
        self, path: Path, paths: Mapping[int, tuple[Path, ...]]
    ) -> Iterator[tuple[Path, tuple[Any, str]]]:
        """Yield the path of each array with a comparable value and its text.

        Args:
          path: The path of this value, which is not needed.
          paths: The paths of the nodes of the graph.
        """
        for slot, content, reference in zip(self._slots, self._content, self._references, strict=True):
            array = reference()
            comparable = (content, object() if array is None else id(array))
            yield (*paths[slot.node][0], slot.key), (comparable, "an array")


def content_of(x: Any) -> Any:
    """Return the content of a numpy array, which can change in place, in hashable form; None for other arrays."""
    return (
        (x.dtype.str, x.shape, x.tobytes()) if isinstance(x, np.ndarray) and not x.dtype.hasobject else None
    )


def _reference(x: Any) -> Callable[[], Any]:
    """Return a weak reference to an array; a dead one if the array (such as a tracer) does not support them."""
    try:
        return weakref.ref(x)
    except TypeError:
        return lambda: None


def pin(walk: Walk, edges: Sequence[Any]) -> Pinned | None:
    """Collect the array leaves of captured modules.

    Args:
      walk: The walk that has visited the modules.
      edges: The edges of the modules.

    Returns:
      The array leaves; None if there are none.
    """
    specs = walk.finished_specs()
    numbers = reach(specs, edges)
    arrays = [x for number in numbers for x in walk.arrays[number]]
    return Pinned(arrays, array_slots((n, specs[n]) for n in numbers)) if arrays else None
