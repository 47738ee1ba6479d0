"""Requests to make a call again, with more captured objects as inputs."""

from __future__ import annotations

from typing import Any

from liftnn._src.tracebacks import Line


class RetryNeeded(Exception):  # noqa: N818  # not an error: it requests another attempt
    """Raised by a trace that has found objects of which its call did not know."""


class RetryWithCaptures(RetryNeeded):
    """Raised after a function has returned if it used captured objects that were not inputs.

    Args:
      objects: The objects.
      line: The line that used the first of them.
    """

    def __init__(self, objects: list[Any], line: Line | None = None):
        super().__init__()
        self.objects = objects
        self.line = line


class RetryAsCapture(RetryNeeded):
    """Raised where an argument of a map leads to another one with another axis; the function can capture it instead.

    Args:
      leaf: The path of the argument.
    """

    def __init__(self, leaf: tuple[Any, ...]):
        super().__init__()
        self.leaf = leaf
