"""Owners of modules and Variables that are no frames: they say where an object may be written."""

from __future__ import annotations

from typing import Any


class RawTrace:
    """The owner of objects created under a raw JAX transform.

    Args:
      frame: The innermost frame when they were created.
      trace_state: JAX's trace.
    """

    __slots__ = ("frame", "trace_state")

    def __init__(self, frame: Any, trace_state: Any):
        self.frame = frame
        self.trace_state = trace_state


class _Copied:
    """The type of `COPIED`."""

    __slots__ = ()


COPIED = _Copied()
"""The owner of Variables that a raw JAX transform has created from its arguments."""


class _View:
    """The type of `VIEW`."""

    __slots__ = ()


VIEW = _View()
"""The owner of modules that show a part of another module: only values of Variables can be written through them."""
