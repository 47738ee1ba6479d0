"""Pytrees of graph objects: attribute paths in words, and which leaves are arrays."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

Key = Any
Path = tuple[Key, ...]

ARRAY_TYPES = (jax.Array, np.ndarray, jax.ShapeDtypeStruct)
NUMBER_TYPES = (bool, int, float, complex, np.generic)


def is_array(x: Any) -> bool:
    """Whether `x` is an array, a tracer or the abstract description of an array."""
    return isinstance(x, ARRAY_TYPES)


_jax_arrays: set[type] = set()
"""The classes of JAX's arrays and tracers that have been seen."""


def is_jax_array(x: Any) -> bool:
    """`isinstance(x, jax.Array)`, which for a tracer takes 0.6 us, in 0.1."""
    cls = type(x)
    if cls in _jax_arrays:
        return True
    found = isinstance(x, jax.Array)
    if found:
        _jax_arrays.add(cls)
    return found


def is_argument_array(x: Any) -> bool:
    """Whether JAX takes `x` as an array argument: arrays, and Python and numpy numbers too."""
    return isinstance(x, (*NUMBER_TYPES, *ARRAY_TYPES)) or hasattr(type(x), "__jax_array__")


def format_path(path: Iterable[Key], root: str = "") -> str:
    """An attribute path as one would type it.

    Args:
      path: Attribute names, list positions and dict keys from the root down.
      root: What the path starts from, such as `"args[0]"`; the default is nothing.

    Returns:
      For example `args[0].encoder.layers[3].w`.
    """
    text = root
    for key in path:
        if isinstance(key, str) and key.isidentifier():
            text += f".{key}" if text else key
        else:
            text += f"[{key!r}]"
    return text or "<root>"


def key_of(entry: Any) -> Key:
    """The plain key inside one entry of a JAX key path."""
    for name in ("key", "idx", "name", "path"):  # the last is a State's, which is flat
        if hasattr(entry, name):
            return getattr(entry, name)
    return entry


def list_paths(paths: Iterable[str], most: int = 8) -> str:
    """Paths one a line, indented; beyond `most` a count."""
    paths = list(paths)
    lines = [f"  {p}" for p in paths[:most]]
    if len(paths) > most:
        lines.append(f"  ... and {len(paths) - most} more")
    return "\n".join(lines)


def are_distinct(tree: Any) -> bool:
    """Whether no two leaves of a tree are the same object; 60 ns for each."""
    leaves = jax.tree.leaves(tree)
    return len(set(map(id, leaves))) == len(leaves)


def make_picker(positions: Sequence[int]) -> Callable[[Any], Any]:
    """A function that picks some elements of a list or tuple, by a C call.

    Args:
      positions: Which ones, in order.

    Returns:
      The function. If the elements follow each other it gives a list of a list, else a tuple.
    """
    start, size = positions[0] if positions else 0, len(positions)
    if list(positions) == list(range(start, start + size)):
        return operator.itemgetter(slice(start, start + size))
    return operator.itemgetter(*positions)


def broadcast_prefix(
    prefix: Any, tree: Any, is_leaf: Callable[[Any], bool], is_prefix_leaf: Callable[[Any], bool]
) -> list[Any]:
    """One entry of `prefix` for each leaf of `tree`, in the order of JAX's flattening.

    Args:
      prefix: A tree prefix of `tree`, such as `in_axes`.
      tree: The tree it describes.
      is_leaf: Which nodes of `tree` are leaves.
      is_prefix_leaf: Which nodes of `prefix` are leaves, besides None.

    Returns:
      The broadcast entries.
    """
    entries: list[Any] = []

    def add(entry: Any, subtree: Any) -> None:
        entries.extend([entry] * len(jax.tree.leaves(subtree, is_leaf=is_leaf)))

    jax.tree.map(add, prefix, tree, is_leaf=lambda x: x is None or is_prefix_leaf(x))
    return entries
