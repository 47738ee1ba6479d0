"""Formatting of nested objects: blocks indented by two spaces per level, with one entry per line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

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


def _is_numpy(x: Any) -> bool:
    """Return whether the dtype is one of numpy's (that of a typed PRNG key is one of JAX's)."""
    return isinstance(x.dtype, np.dtype)
