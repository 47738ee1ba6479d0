"""What functions of arrays cost through liftnn's transforms, against JAX's own: wrapped anew, and called again.

python benchmarks/arrays.py [--quick] [--rounds N] [--output FOLDER]
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from machine import environment
from measure import Row, Run, options, report, take_turns

import liftnn

X = jnp.arange(1.0, 5.0)
ZERO = jnp.zeros(())


def double(x: Any) -> Any:
    """A function of one array."""
    return jnp.sin(x) * 2


def loss(x: Any) -> Any:
    """A scalar function."""
    return (double(x) ** 2).sum()


def body(carry: Any, x: Any) -> Any:
    """A step of a scan."""
    return carry + x, carry * 2


def step(i: Any, x: Any) -> Any:
    """A step of a `fori_loop`."""
    return x + i


def is_small(x: Any) -> Any:
    """A condition."""
    return x < 5


def increase(x: Any) -> Any:
    """A step of a `while_loop`."""
    return x + 1


CASES: dict[str, tuple[float, Callable[[], Any], Callable[[], Any]]] = {
    "jit(f)(x), wrapped in each call": (2, lambda: liftnn.jit(double)(X), lambda: jax.jit(double)(X)),
    "eager scan, repeated": (3, lambda: liftnn.scan(body)(ZERO, X), lambda: jax.lax.scan(body, ZERO, X)),
    "eager while_loop, repeated": (
        3,
        lambda: liftnn.while_loop(is_small, increase, ZERO),
        lambda: jax.lax.while_loop(is_small, increase, ZERO),
    ),
    "eager fori_loop, repeated": (
        3,
        lambda: liftnn.fori_loop(0, 5, step, ZERO),
        lambda: jax.lax.fori_loop(0, 5, step, ZERO),
    ),
    "eager cond, repeated": (
        3,
        lambda: liftnn.cond(True, double, increase, X),
        lambda: jax.lax.cond(True, double, increase, X),
    ),
    "eval_shape, repeated": (2, lambda: liftnn.eval_shape(double, X), lambda: jax.eval_shape(double, X)),
    "make_jaxpr, repeated": (2, lambda: liftnn.make_jaxpr(double)(X), lambda: jax.make_jaxpr(double)(X)),
    "checkpoint, repeated": (2, lambda: liftnn.checkpoint(double)(X), lambda: jax.checkpoint(double)(X)),
    "eager grad": (1.15, functools.partial(liftnn.grad(loss), X), functools.partial(jax.grad(loss), X)),
    "eager vmap": (1.15, functools.partial(liftnn.vmap(double), X), functools.partial(jax.vmap(double), X)),
    "eager vjp": (1.15, lambda: liftnn.vjp(double, X), lambda: jax.vjp(double, X)),
    "eager vmap, wrapped in each call": (1.15, lambda: liftnn.vmap(double)(X), lambda: jax.vmap(double)(X)),
}


def calls(f: Callable[[], Any]) -> Run:
    """A contender that calls a function and waits for the last result."""

    def run(n: int) -> None:
        out = None
        for _ in range(n):
            out = f()
        jax.block_until_ready([x for x in jax.tree.leaves(out) if isinstance(x, jax.Array)])

    return run


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    rows: list[Row] = []
    for name, (target, ours, theirs) in CASES.items():
        times = take_turns({"liftnn": calls(ours), "jax": calls(theirs)}, max(11, chosen.rounds // 3))
        rows.append(Row(name, times.ratio("liftnn", "jax"), target, microseconds=times.microseconds()))
        rows[-1].at_best = times.at_best("liftnn", "jax")
    report("arrays", rows, chosen.output, started)


if __name__ == "__main__":
    main()
