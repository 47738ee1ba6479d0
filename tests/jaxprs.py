"""What the equations of a jaxpr tell, in each version of JAX."""

from __future__ import annotations

from typing import Any


def scan_sizes(equation: Any) -> tuple[int, int]:
    """How many constants and how many carried values a scan has: what its body takes, and gives, as a whole."""
    body = equation.params["jaxpr"]
    body = getattr(body, "jaxpr", body)
    taken, given = _whole(equation.invars, body.invars), _whole(equation.outvars, body.outvars)
    return taken - given, given


def _whole(outer: Any, inner: Any) -> int:
    """How many of the values have the same shape outside, where slices are stacked, as in the body."""
    return sum(x.aval.shape == y.aval.shape for x, y in zip(outer, inner, strict=True))
