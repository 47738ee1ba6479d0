"""What modules cost without `jit`: eager forward and `grad`, `split` and `merge`, of 64 layers, and eager loops.

python benchmarks/eager.py [--quick] [--rounds N] [--output FOLDER]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import steps
from flax import nnx as flax_nnx
from machine import environment
from measure import Row, Run, options, report, take_turns

import liftnn

DEPTH = 64


def calls(f: Callable[..., Any], *args: Any) -> Run:
    """A contender that calls a function."""
    return lambda n: steps.repeat(n, f, *args)


def lifted_loss(model: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """The loss of a model."""
    return jnp.mean((model(x) - y) ** 2)


def hand_written_loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """The loss of nested dicts."""
    return jnp.mean((steps.forward(params, x) - y) ** 2)


def split_and_merge(nnx: Any) -> Run:
    """Splits a model and merges it again."""
    model = steps.STACKS[nnx](DEPTH)

    def run(n: int) -> None:
        for _ in range(n):
            first, second = nnx.split(model)
            graphdef, state = (second, first) if nnx is liftnn else (first, second)
            nnx.merge(graphdef, state)

    return run


class Sum(liftnn.Module):
    """A module that a loop writes to in each step."""

    def __init__(self) -> None:
        self.total = liftnn.Variable(jnp.zeros(8))


def add(module: Sum, x: jax.Array) -> tuple[Sum, jax.Array]:
    """One step of `scan`."""
    module.total.value = module.total + x
    return module, x


def add_arrays(total: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step of `jax.lax.scan`."""
    return total + x, x


def double(module: Sum) -> Sum:
    """One branch of `cond`."""
    module.total.value = 2 * module.total
    return module


def leave(module: Sum) -> Sum:
    """The other branch."""
    return module


def double_array(total: jax.Array) -> jax.Array:
    """One branch of `jax.lax.cond`."""
    return 2 * total


def leave_array(total: jax.Array) -> jax.Array:
    """The other branch."""
    return total


def loops() -> dict[str, tuple[float, str, dict[str, Run]]]:
    """Loops and branches outside of `jit`, wrapped anew in each call, against JAX's over the same arrays."""
    module, total, xs, yes = Sum(), jnp.zeros(8), jnp.ones((16, 8)), jnp.array(True)
    return {
        "eager scan, 16 steps": (
            1.10,
            "jax",
            {
                "liftnn": calls(lambda: liftnn.scan(add)(module, xs)),
                "jax": calls(lambda: jax.lax.scan(add_arrays, total, xs)),
            },
        ),
        "eager cond": (
            1.10,
            "jax",
            {
                "liftnn": calls(lambda: liftnn.cond(yes, double, leave, module)),
                "jax": calls(lambda: jax.lax.cond(yes, double_array, leave_array, total)),
            },
        ),
    }


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    rounds = max(11, chosen.rounds // 3)
    model, params = steps.STACKS[liftnn](DEPTH), steps.nested_params(DEPTH)
    x, y = steps.batch()
    pairs: dict[str, tuple[float, str, dict[str, Run]]] = {
        "eager forward, 64 layers": (
            1.10,
            "jax",
            {"liftnn": calls(lambda model, x: model(x), model, x), "jax": calls(steps.forward, params, x)},
        ),
        "eager grad, 64 layers": (
            1.10,
            "jax",
            {
                "liftnn": calls(lambda *args: jax.tree.leaves(liftnn.grad(lifted_loss)(*args)), model, x, y),
                "jax": calls(lambda *args: jax.tree.leaves(jax.grad(hand_written_loss)(*args)), params, x, y),
            },
        ),
        "split + merge, 64 layers / Flax NNX": (
            0.5,
            "flax",
            {"liftnn": split_and_merge(liftnn), "flax": split_and_merge(flax_nnx)},
        ),
        **loops(),
    }
    rows: list[Row] = []
    for name, (target, base, contenders) in pairs.items():
        times = take_turns(contenders, rounds)
        rows.append(Row(name, times.ratio("liftnn", base), target, microseconds=times.microseconds()))
        rows[-1].at_best = times.at_best("liftnn", base)
    report("eager", rows, chosen.output, started)


if __name__ == "__main__":
    main()
