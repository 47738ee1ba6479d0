"""Whether two results are the same: structure, sharing, static values, and numbers."""

from __future__ import annotations

from typing import Any

from tests.alike import find_difference, has_tracer

__all__ = ["assert_same", "has_tracer"]

TOLERANCE = 1e-5
"""What the order of additions changes in a float32 that a compiled program makes."""


def assert_same(actual: Any, expected: Any) -> None:
    """Two trees of modules have equal structure (sharing and cycles included) and equal numbers.

    Args:
      actual: What came out.
      expected: What the plain call made.
    """
    difference = find_difference(actual, expected, array_types=False, tolerance=TOLERANCE)
    assert difference is None, "at {}: {} is not {}".format(*difference)
