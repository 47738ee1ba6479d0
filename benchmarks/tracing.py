"""What tracing costs: a train step of 64 layers, and those under one transform, against hand-written JAX; how it grows.

    python benchmarks/tracing.py [--quick] [--rounds N] [--output FOLDER]

Each round traces functions that JAX has not seen, for the same layers; nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
import steps
import transformed
from machine import environment
from measure import Row, Run, Times, options, report, take_turns

import liftnn


class LinearStack(liftnn.Module):
    """A stack of the library's own layer, which promotes dtypes and checks shapes."""

    def __init__(self, depth: int):
        rngs = liftnn.Rngs(0)
        self.layers = [liftnn.Linear(steps.WIDTH, steps.WIDTH, rngs=rngs) for _ in range(depth)]

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return x


def lifted(stack: Callable[[int], Any], depth: int, last: str) -> Run:
    """Traces, and lowers if that is the last stage, a step of liftnn's."""
    model = stack(depth)
    optimizer = liftnn.Optimizer(model, optax.adam(1e-3))
    x, y = steps.batch()

    def run(n: int) -> None:
        for _ in range(n):
            getattr(liftnn.jit(steps.functions(liftnn, "liftnn")[1]), last)(model, optimizer, x, y)

    return run


def hand_written(depth: int, last: str) -> Run:
    """The same for nested dicts."""
    params = steps.nested_params(depth)
    opt_state = optax.adam(1e-3).init(params)
    x, y = steps.batch()

    def run(n: int) -> None:
        for _ in range(n):
            getattr(jax.jit(steps.hand_written("jax")[1]), last)(params, opt_state, x, y)

    return run


def again(case: transformed.Case) -> Run:
    """Traces a case, each time as a new function."""

    def run(n: int) -> None:
        for _ in range(n):
            case.traced()

    return run


def timed(contenders: dict[str, Run], rounds: int) -> Times:
    """Times contenders, one call each a round."""
    return take_turns(contenders, rounds, slice_seconds=0.0)


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    rounds = max(5, chosen.rounds // 6)
    rows: list[Row] = []
    stacks = {"": steps.STACKS[liftnn], ", of liftnn.Linear": LinearStack}
    for last in ("trace", "lower"):
        made = {name or "liftnn": lifted(stack, 64, last) for name, stack in stacks.items()}
        times = timed({**made, "jax": hand_written(64, last)}, rounds)
        for name in stacks:
            label = f"{last} a train step of 64 layers{name}"
            target = 1.10 if last == "trace" else None
            figure = times.ratio(name or "liftnn", "jax")
            rows.append(Row(label, figure, target, microseconds=times.microseconds()))
            rows[-1].at_best = times.at_best(name or "liftnn", "jax")
    for transform in ("grad", "vmap", "scan"):
        ours, theirs = transformed.case(transform, 64)
        times = timed({"liftnn": again(ours), "jax": again(theirs)}, rounds)
        label = f"trace {transform} of 64 layers"
        rows.append(Row(label, times.ratio("liftnn", "jax"), 1.15, microseconds=times.microseconds()))
        rows[-1].at_best = times.at_best("liftnn", "jax")
    times = timed({str(depth): lifted(steps.STACKS[liftnn], depth, "trace") for depth in (50, 200)}, rounds)
    rows.append(
        Row("trace 200 layers / 50 layers", times.ratio("200", "50"), 5.0, microseconds=times.microseconds())
    )
    rows[-1].at_best = times.at_best("200", "50")
    report("tracing", rows, chosen.output, started)


if __name__ == "__main__":
    main()
