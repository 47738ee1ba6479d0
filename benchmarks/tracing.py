"""What a first call costs, against hand-written JAX: tracing steps and transforms of 64 layers, and a whole call.

    python benchmarks/tracing.py [--quick] [--rounds N] [--output FOLDER]

Each round traces functions that JAX has not seen, for the same layers. The whole first call is also compiled and run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import jax
import optax
import steps
import transformed
from machine import environment
from measure import Row, Run, Times, options, report, take_single_turns, take_turns

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


MASKED = optax.adamw(1e-3, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params))


def lifted(stack: Callable[[int], Any], depth: int, last: str, tx: Any = steps.ADAM) -> Run:
    """Traces, and lowers if that is the last stage, a step of liftnn's."""
    model = stack(depth)
    optimizer = liftnn.Optimizer(model, tx)
    x, y = steps.batch()

    def run(n: int) -> None:
        for _ in range(n):
            getattr(liftnn.jit(steps.functions(liftnn, "liftnn")[1]), last)(model, optimizer, x, y)

    return run


def hand_written(depth: int, last: str, tx: Any = steps.ADAM) -> Run:
    """The same for nested dicts."""
    params = steps.nested_params(depth)
    opt_state = tx.init(params)
    x, y = steps.batch()

    def run(n: int) -> None:
        for _ in range(n):
            getattr(jax.jit(steps.hand_written("jax", tx)[1]), last)(params, opt_state, x, y)

    return run


def deeper(run: Run, depth: int) -> Run:
    """The same from some functions deeper: the place in a program must not change what a trace takes."""

    def call(n: int, left: int = depth) -> None:
        if left:
            call(n, left - 1)
        else:
            run(n)

    return call


def first_call_row(rounds: int, depth: int = 16) -> Row:
    """The first call of a train step: it is traced, lowered, compiled and run, and nothing of it is cached."""
    model, params = steps.STACKS[liftnn](depth), steps.nested_params(depth)
    optimizer = liftnn.Optimizer(model, steps.ADAM, wrt=liftnn.Param)
    opt_state = steps.ADAM.init(params)
    x, y = steps.batch()

    made_before: list[Any] = []

    def first(jit: Callable[..., Any], make: Callable[[], Any], *args: Any) -> Run:
        def run(n: int) -> None:
            for _ in range(n):
                made_before.append(jit(make()))
                jax.block_until_ready(made_before[-1](*args, x, y))

        return run

    made = {
        "liftnn": first(liftnn.jit, lambda: steps.functions(liftnn, "liftnn")[1], model, optimizer),
        "jax": first(jax.jit, lambda: steps.hand_written("jax")[1], params, opt_state),
    }

    def prepare() -> None:
        made_before.clear()  # it takes 10 ms to free a program: not a part of the first call
        clear_caches()

    times = take_turns(made, rounds, slice_seconds=0.0, prepare=prepare)
    return compared(f"first call of a train step of {depth} layers", times, target=1.02)


def compared(
    name: str, times: Times, ours: str = "liftnn", theirs: str = "jax", target: float | None = None
) -> Row:
    """The row of the ratio of two contenders."""
    row = Row(name, times.ratio(ours, theirs), target, microseconds=times.microseconds())
    row.at_best = times.at_best(ours, theirs)
    return row


def clear_caches() -> None:
    """Empties the caches of JAX, and those of liftnn's functions."""
    jax.clear_caches()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "liftnn":
            for value in vars(module).values():
                if hasattr(type(value), "cache_clear"):  # made by functools.cache
                    value.cache_clear()


def again(case: transformed.Case) -> Run:
    """Traces a case, each time as a new function."""

    def run(n: int) -> None:
        for _ in range(n):
            case.traced()

    return run


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    rounds = max(5, chosen.rounds // 6)
    rows: list[Row] = []
    plain, linear = steps.STACKS[liftnn], LinearStack
    for last, target in (("trace", 1.10), ("lower", None)):
        made = {"liftnn": lifted(plain, 64, last), "Linear": lifted(linear, 64, last)}
        times = take_single_turns({**made, "jax": hand_written(64, last)}, rounds)
        step = f"{last} a train step of 64 layers"
        rows.append(compared(step, times, target=target))
        rows.append(compared(f"{step} of liftnn.Linear", times, "Linear", target=target))
    made = {"liftnn": deeper(lifted(plain, 64, "trace"), 20), "jax": deeper(hand_written(64, "trace"), 20)}
    times = take_single_turns(made, rounds)
    rows.append(compared("trace a train step of 64 layers, 20 functions deeper", times, target=1.10))
    made = {"liftnn": lifted(plain, 64, "trace", MASKED), "jax": hand_written(64, "trace", MASKED)}
    times = take_single_turns(made, rounds)
    rows.append(compared("trace a train step of 64 layers, adamw with a mask", times))
    for transform, target in (("grad", 1.15), ("vmap", 1.10), ("scan", 1.12)):
        ours, theirs = transformed.case(transform, 64)
        times = take_single_turns({"liftnn": again(ours), "jax": again(theirs)}, rounds)
        rows.append(compared(f"trace {transform} of 64 layers", times, target=target))
    times = take_single_turns({str(depth): lifted(plain, depth, "trace") for depth in (50, 200)}, rounds)
    rows.append(compared("trace 200 layers / 50 layers", times, "200", "50", 5.0))
    rows.append(first_call_row(max(5, chosen.rounds // 2)))
    report("tracing", rows, chosen.output, started)


if __name__ == "__main__":
    main()
