"""Floating point operations of programs, as XLA estimates them without compiling; equal programs are lowered once.

XLA counts the body of a loop once, whatever its length. So the estimate of a program is that of XLA, and for each scan
in it the estimate of the body times the number of iterations that XLA leaves out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from liftnn._src.summary.liveness import needed_below, programs_in, used_equations


class Count(NamedTuple):
    """The floating point operations of a program.

    Args:
      flops: The number of operations.
      has_unknown_loops: Whether the program has a loop whose number of iterations it does not tell; its body counts
        once.
    """

    flops: float
    has_unknown_loops: bool


class FlopCounter:
    """Counts the floating point operations of programs; the layers of a model are often equal programs."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int, bool], Count] = {}
        self._estimates: dict[tuple[str, tuple[bool, ...]], float] = {}

    def count(self, closed: Any, results: int, *, backward: bool = False) -> Count:
        """Return the operations of a program.

        Args:
          closed: The program, a closed jaxpr.
          results: The number of outputs that matter: the last ones. Operations for the others, which a call writes to
            Variables such as running statistics, do not count, as in Flax NNX.
          backward: Whether to add its backward pass. False by default.

        Returns:
          The estimate of XLA, with each scan times its length.
        """
        key = (str(closed), results, backward)
        if key not in self._counts:
            count = len(closed.out_avals)
            forward = _as_function(closed, [i >= count - results for i in range(count)])
            f = _with_backward(forward) if backward else forward
            jaxpr = jax.make_jaxpr(f)(*_shapes(closed)).jaxpr
            left_out = self._left_out(jaxpr, [True] * len(jaxpr.outvars))
            self._counts[key] = Count(_estimate(f, closed) + left_out.flops, left_out.has_unknown_loops)
        return self._counts[key]

    def _left_out(self, jaxpr: Any, outputs: Sequence[bool]) -> Count:
        """Return the operations of a program that XLA leaves out: those of all iterations that it does not count."""
        counts = [self._left_out_of(x, outs) for x, outs in used_equations(jaxpr, outputs)[0]]
        return Count(sum(x.flops for x in counts), any(x.has_unknown_loops for x in counts))

    def _left_out_of(self, equation: Any, outputs: Sequence[bool]) -> Count:
        """Return what XLA leaves out of one equation, given which of its outputs are needed."""
        name = equation.primitive.name
        if name == "pallas_call":  # XLA does not look into kernels
            return Count(0.0, False)
        if name == "shard_map":  # its parts cannot be lowered by themselves: they use the axes of the mesh
            return Count(0.0, any(map(_has_loop, programs_in(equation))))
        needed = [(x, needed_below(equation, x, outputs)) for x in programs_in(equation)]
        below = [self._left_out(x, outs) for x, outs in needed]
        if name == "scan":
            return self._left_out_of_scan(equation.params, needed[0][1], below[0])
        total = max if name == "cond" else sum  # XLA takes the most expensive branch
        flops = total([0.0, *(x.flops for x in below)])
        return Count(flops, name == "while" or any(x.has_unknown_loops for x in below))

    def _left_out_of_scan(self, params: dict[str, Any], outputs: Sequence[bool], below: Count) -> Count:
        """Return what XLA leaves out of a scan: it counts one iteration of the loop, and those after it."""
        length, unroll = params["length"], params["unroll"]
        blocks, rest = divmod(length, unroll)
        missing = length - (unroll if blocks else 0) - rest
        flops = missing * self._estimate_of_body(params["jaxpr"], outputs) if missing else 0.0
        return Count(flops + length * below.flops, below.has_unknown_loops)

    def _estimate_of_body(self, closed: Any, outputs: Sequence[bool]) -> float:
        """Return the estimate of XLA for one iteration of a loop."""
        key = (str(closed), tuple(outputs))
        if key not in self._estimates:
            self._estimates[key] = _estimate(_as_function(closed, outputs), closed)
        return self._estimates[key]


def _has_loop(jaxpr: Any) -> bool:
    """Return whether a program has a loop, at any depth."""
    return any(
        x.primitive.name in ("scan", "while") or any(map(_has_loop, programs_in(x))) for x in jaxpr.eqns
    )


def _as_function(closed: Any, outputs: Sequence[bool]) -> Callable[..., list[Any]]:
    """Return a function that runs a program, for some of its outputs."""
    extend: Any = importlib.import_module("jax.extend.core")  # 40 ms, so not with this file
    run = extend.jaxpr_as_fun(closed)
    return lambda *leaves: [x for x, is_needed in zip(run(*leaves), outputs, strict=True) if is_needed]


def _with_backward(forward: Callable[..., list[Any]]) -> Callable[..., Any]:
    """Return a function that runs another one and its backward pass."""

    def run(*leaves: Any) -> Any:
        inexact = {i: x for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.inexact)}

        def of(inexact: dict[int, Any]) -> list[Any]:
            out = forward(*[inexact.get(i, x) for i, x in enumerate(leaves)])
            return [x for x in out if jnp.issubdtype(x.dtype, jnp.inexact)]

        out, pull_back = jax.vjp(of, inexact)
        return out, pull_back(out)

    return run


def _estimate(f: Callable[..., Any], closed: Any) -> float:
    """Return the floating point operations of a function of the inputs of a program, as XLA estimates them."""
    costs: Any = jax.jit(f).lower(*_shapes(closed)).cost_analysis() or {}
    return float(costs.get("flops", 0.0))


def _shapes(closed: Any) -> list[jax.ShapeDtypeStruct]:
    """Return the inputs of a program as abstract arrays."""
    return [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in closed.in_avals]
