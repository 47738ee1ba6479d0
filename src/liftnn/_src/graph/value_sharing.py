"""Find containers shared by the values of several Variables; a transform would silently copy them."""

from __future__ import annotations

import collections
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from liftnn import errors
from liftnn._src.graph.kinds import is_object
from liftnn._src.static_values.value_types import is_frozen_dataclass
from liftnn._src.trees import LEAF, Path, an, format_path, is_jax_array, key_of

K = TypeVar("K")
_VALUE_ATOMS = (str, bytes, int, float, complex, type(None), np.ndarray, np.generic)
_SHARED_CONTAINERS = (list, dict, set, collections.deque, bytearray, types.SimpleNamespace)


def check_unshared(values: Mapping[K, Any], name: Callable[[K], str] = str) -> None:
    """Raise StructureError if the values of Variables hold the same mutable container twice.

    Inside a transform each Variable has its own containers, so a change through one Variable would not be visible
    through the other. Arrays, tuples and other immutable values may be shared.

    Args:
      values: The value of each Variable, by any key that identifies the Variable.
      name: Returns the path of a Variable as text. The default formats the keys of `values`.

    Raises:
      StructureError: If a list, dict, set or other mutable pytree is reached twice; the message has both paths. If a
        dict has keys that JAX cannot sort.
    """
    first: dict[int, tuple[K, Path]] = {}
    containers: list[Any] = []  # a pytree may create one in each flattening, whose id must not be used again
    for key, value in values.items():
        if is_jax_array(value) or isinstance(value, _VALUE_ATOMS):
            continue
        for path, container in _containers(value, lambda key=key: f"{name(key)}.value"):
            containers.append(container)
            known = first.setdefault(id(container), (key, path))
            if known != (key, path):
                raise _shared_error(
                    container, *(format_path(p, f"{name(k)}.value") for k, p in (known, (key, path)))
                )


def has_containers(value: Any) -> bool:
    """Return whether the value of a Variable holds a container that can change in place."""
    return next(_containers(value), None) is not None


def _containers(value: Any, name: Callable[[], str] = lambda: "value") -> Iterator[tuple[Path, Any]]:
    """Yield the mutable containers in a value with their paths, each before its contents."""
    stack: list[tuple[Path, Any]] = [((), value)]
    while stack:
        path, x = stack.pop()
        if is_jax_array(x) or isinstance(x, _VALUE_ATOMS) or hasattr(type(x), "__graph_node__"):
            continue
        met = iter((False,))  # not by identity: a list may hold itself
        try:
            entries, treedef = jax.tree_util.tree_flatten_with_path(
                x, is_leaf=lambda _, met=met: next(met, True)
            )
        except ValueError:
            if not isinstance(x, dict):  # of the user's class
                raise
            raise _unsorted_error(x, format_path(path, name())) from None
        opened = (treedef != LEAF and bool(entries) and not isinstance(x, tuple)) or is_object(x)
        if (opened and not is_frozen_dataclass(type(x))) or isinstance(x, _SHARED_CONTAINERS):
            yield path, x
        if treedef == LEAF:
            continue
        stack += [((*path, *map(key_of, keys)), child) for keys, child in reversed(entries)]


def _unsorted_error(x: dict[Any, Any], path: str) -> errors.StructureError:
    types_of_keys = sorted({type(key).__name__ for key in x})
    return errors.StructureError(
        f"{path} is {an(type(x))} with keys that JAX cannot sort: they are of type {' and '.join(types_of_keys)}.",
        "Use strings or integers as keys, or store Variables in a dict of a Module, which takes any keys.",
    )


def _shared_error(container: Any, one: str, other: str) -> errors.StructureError:
    kind = type(container).__name__
    return errors.StructureError(
        f"{other} and {one} are the same {kind}. Each Variable has its own {kind} inside a transform, so a change "
        "through one would not be visible through the other.",
        f"Share the Variable instead of the {kind}, or copy the {kind} for one of them.",
    )
