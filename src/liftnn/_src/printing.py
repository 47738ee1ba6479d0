"""How objects print: nested blocks, two spaces a level, one entry a line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

MAX_DEPTH = 48
"""Blocks nested deeper than this print as `Name(...)`: a chain of thousands of modules still prints."""


def block(opening: str, entries: Iterable[str], closing: str) -> str:
    """Text between two brackets: entries on lines of their own, indented; nothing between if there is none."""
    body = ",\n".join(entries)
    if not body:
        return opening + closing
    return f"{opening}\n{indent(body)}\n{closing}"


def indent(text: str) -> str:
    """Two spaces before every line."""
    return "  " + text.replace("\n", "\n  ")


def mapping(entries: Iterable[tuple[str, str]]) -> str:
    """A dict of texts, in braces."""
    return block("{", (f"{key}: {text}" for key, text in entries), "}")


def call(name: str, entries: Iterable[tuple[str, str]]) -> str:
    """A constructor call with keyword arguments."""
    return block(f"{name}(", (f"{key}={text}" for key, text in entries), ")")


def array_summary(x: Any) -> str:
    """One array as type, dtype and shape, without its numbers."""
    kind = "Array" if isinstance(x, jax.Array) else type(x).__name__
    return f"{kind}({np.dtype(x.dtype).name if _is_numpy(x) else x.dtype}{list(x.shape)})"


def _is_numpy(x: Any) -> bool:
    """Whether the dtype is one of numpy's (a typed PRNG key has one of JAX's)."""
    return isinstance(x.dtype, np.dtype)
