"""Floating point operations of programs, as XLA estimates them without compiling; equal programs are lowered once."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


class FlopCounter:
    """Counts the floating point operations of programs; the layers of a model are often equal programs."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int, bool], float] = {}

    def count(self, closed: Any, results: int, *, backward: bool = False) -> float:
        """Return the operations of a program.

        Args:
          closed: The program, a closed jaxpr.
          results: The number of outputs that matter: the last ones. Operations for the others, which a call writes to
            Variables such as running statistics, do not count, as in Flax NNX.
          backward: Whether to add its backward pass. False by default.

        Returns:
          The estimate of XLA.
        """
        key = (str(closed), results, backward)
        if key not in self._counts:
            f = _with_backward(closed, results) if backward else _as_function(closed, results)
            self._counts[key] = _estimate(f, closed)
        return self._counts[key]


def _as_function(closed: Any, results: int) -> Callable[..., list[Any]]:
    """Return a function that runs a program, for its last outputs."""
    extend: Any = importlib.import_module("jax.extend.core")  # 40 ms, so not with this file
    run = extend.jaxpr_as_fun(closed)
    return lambda *leaves: run(*leaves)[len(closed.out_avals) - results :]


def _with_backward(closed: Any, results: int) -> Callable[..., Any]:
    """Return a function that runs a program and its backward pass."""
    forward = _as_function(closed, results)

    def run(*leaves: Any) -> Any:
        picked = {i: x for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.inexact)}

        def of(picked: dict[int, Any]) -> list[Any]:
            out = forward(*[picked.get(i, x) for i, x in enumerate(leaves)])
            return [x for x in out if jnp.issubdtype(x.dtype, jnp.inexact)]

        out, pull_back = jax.vjp(of, picked)
        return out, pull_back(out)

    return run


def _estimate(f: Callable[..., Any], closed: Any) -> float:
    """Return the floating point operations of a function of the inputs of a program, as XLA estimates them."""
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in closed.in_avals]
    costs: Any = jax.jit(f).lower(*shapes).cost_analysis() or {}
    return float(costs.get("flops", 0.0))
