"""Formatting of nested objects: blocks indented by two spaces per level, with one entry per line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from liftnn._src import lazy
from liftnn._src.trees import is_deleted

MAX_DEPTH = 48
"""Blocks nested deeper than this print as `Name(...)`, so a chain of thousands of modules still prints."""


def block(opening: str, entries: Iterable[str], closing: str) -> str:
    """Format entries between two brackets, indented and one per line; only the brackets if there are none."""
    body = ",\n".join(entries)
    if not body:
        return opening + closing
    return f"{opening}\n{indent(body)}\n{closing}"


def indent(text: str) -> str:
    """Indent every line by two spaces."""
    return "  " + text.replace("\n", "\n  ")


def mapping(entries: Iterable[tuple[str, str]]) -> str:
    """Format a dict of texts, in braces."""
    return block("{", (f"{key}: {text}" for key, text in entries), "}")


def call(name: str, entries: Iterable[tuple[str, str]]) -> str:
    """Format a constructor call with keyword arguments."""
    return block(f"{name}(", (f"{key}={text}" for key, text in entries), ")")


def array_summary(x: Any) -> str:
    """Format an array as type, dtype and shape, without its values."""
    kind = "Array" if isinstance(x, jax.Array) else type(x).__name__
    return f"{kind}({np.dtype(x.dtype).name if _is_numpy(x) else x.dtype}{list(x.shape)})"


def value_repr(x: Any) -> str:
    """Format a value by its repr, with arrays of more than 1,000 elements, which are not transferred, by shape.

    Args:
      x: An array, a pytree of arrays, or any other value.

    Returns:
      The text. A deleted array is formatted by shape too, and an object with a repr that raises by its class.
    """
    try:
        return repr(x if isinstance(x, _SMALL_TYPES) else jax.tree.map(_without_values, x))
    except Exception:
        return f"<{type(x).__name__}>"


def _without_values(x: Any) -> Any:
    """Return a leaf whose values can be shown, or its text in place of it."""
    if not isinstance(x, (jax.Array, np.ndarray)):
        return x
    return Verbatim(array_summary(x)) if is_deleted(x) or x.size > _LARGE else x


class Verbatim:
    """An object with a given repr, such as a key of a path of which only the text is known.

    Args:
      text: The repr.
    """

    def __init__(self, text: str):
        self._text = text

    def __repr__(self) -> str:
        return self._text


def ordered_repr(x: Any) -> str:
    """Return the repr of a value with the elements of sets in order, so that it is the same in all processes.

    Args:
      x: The value; sets are found in tuples and sets.

    Returns:
      The text; the class of an object with a repr that raises.
    """
    try:
        return repr(_ordered(x))
    except Exception:
        return f"<{type(x).__name__}>"


def _ordered(x: Any) -> Any:
    if type(x) is tuple:
        return tuple(map(_ordered, x))
    if type(x) not in (set, frozenset) or not x:
        return x
    elements = f"{{{', '.join(sorted(map(ordered_repr, x)))}}}"
    return Verbatim(elements if type(x) is set else f"frozenset({elements})")


_LARGE = 1000
_SMALL_TYPES = (bool, int, float, complex, str, type(None))


def _is_numpy(x: Any) -> bool:
    """Return whether the dtype is one of numpy's (that of a typed PRNG key is one of JAX's)."""
    return isinstance(x.dtype, np.dtype)


class Displayed:
    """Base class of what notebooks and treescope show; the forms are in a higher layer, and loaded at first use."""

    __slots__ = ()

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        return lazy.load("treescope_forms").treescope_form(self, path, subtree_renderer)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return lazy.load("notebook_forms").mime_bundle(self)
