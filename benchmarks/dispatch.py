"""What a warm call costs: liftnn against hand-written `jax.jit` and peers, in one run, taking turns.

    python benchmarks/dispatch.py [--quick] [--rounds N] [--output FOLDER]

Ratios are to hand-written `jax.jit` over nested dicts. `train` is `value_and_grad` and adam.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import contenders
import jax
import jax.numpy as jnp
import optax
import stateful
import steps
from compare import compare, row, warm_up
from flips import flip_row, flipping_rows
from forms import captured_rows, form_rows, place_rows
from machine import environment
from measure import Row, Run, median, options, report
from plot import plot_dispatch
from shardings import sharding_rows

import liftnn

DEPTHS = (2, 16, 128)


def depth_rows(rounds: int) -> Iterator[Row]:
    """Infer and train by depth, with and without donation, against everyone."""
    for kind, train, donate, targets in (
        ("infer", False, False, (1.08, 0.92, 0.85)),
        ("train", True, False, (0.97, 0.95, 0.90)),
        ("train, donated", True, True, (1.10, 1.10, 1.10)),
    ):
        for depth, target in zip(DEPTHS, targets, strict=True):
            made = contenders.make(depth, train=train, donate=donate)
            contenders.check_agreement(made)
            yield row(f"{kind}, depth {depth}", made, rounds, target)
            jax.clear_caches()


def small_infer_row(rounds: int) -> Row:
    """What liftnn adds to the smallest call, in microseconds."""
    pair = {k: steps.CONTENDERS[k](2, train=False) for k in ("liftnn", "jax")}
    times, retraces = compare(pair, rounds)
    figure = times.excess("liftnn", "jax", 1e6)
    return Row("infer, depth 2, overhead over JAX", figure, 3.0, "us", {}, times.microseconds(), retraces)


def stateful_rows(rounds: int) -> Iterator[Row]:
    """The model in which everything changes."""
    for donate in (False, True):
        made = {name: make(donate=donate) for name, make in stateful.CONTENDERS.items()}
        name = "BatchNorm, Dropout, sow, metrics" + (", donated" if donate else "")
        yield row(name, made, rounds, 1.10)


def two_functions() -> dict[str, Run]:
    """A train and an eval function that take turns on one model."""
    x, y = steps.batch()
    infer_fn, train_fn = steps.functions(liftnn, "liftnn")
    model = steps.STACKS[liftnn](16)
    optimizer = liftnn.Optimizer(model, optax.adam(1e-3))
    train, infer = liftnn.jit(train_fn), liftnn.jit(infer_fn)

    def run(n: int) -> None:
        out = None
        for _ in range(n):
            train(model, optimizer, x, y)
            out = infer(model, x)
        jax.block_until_ready(out)

    infer_fn, train_fn = steps.hand_written("jax")
    jax_train, jax_infer = jax.jit(train_fn), jax.jit(infer_fn)
    params = steps.nested_params(16)
    kept = [params, optax.adam(1e-3).init(params)]

    def run_jax(n: int) -> None:
        params, opt_state = kept
        out = None
        for _ in range(n):
            params, opt_state, _ = jax_train(params, opt_state, x, y)
            out = jax_infer(params, x)
        kept[:] = params, opt_state
        jax.block_until_ready(out)

    return {"liftnn": run, "jax": run_jax}


def four_models() -> dict[str, Run]:
    """One train function that four models take turns in."""
    x, y = steps.batch()
    train = liftnn.jit(steps.functions(liftnn, "liftnn")[1])
    models = [steps.STACKS[liftnn](16) for _ in range(4)]
    pairs = [(model, liftnn.Optimizer(model, optax.adam(1e-3))) for model in models]

    def run(n: int) -> None:
        out = None
        for _ in range(n):
            for model, optimizer in pairs:
                out = train(model, optimizer, x, y)
        jax.block_until_ready(out)

    jax_train = jax.jit(steps.hand_written("jax")[1])
    params = [steps.nested_params(16) for _ in range(4)]
    states = [(p, optax.adam(1e-3).init(p)) for p in params]

    def run_jax(n: int) -> None:
        out = None
        for _ in range(n):
            for i, (p, opt_state) in enumerate(states):
                p, opt_state, out = jax_train(p, opt_state, x, y)
                states[i] = p, opt_state
        jax.block_until_ready(out)

    return {"liftnn": run, "jax": run_jax}


class Holder(liftnn.Module):
    """A module that holds another, or a Variable, and some static attributes."""

    def __init__(self, held: Any, n_static: int):
        self.held = held
        for i in range(n_static):
            setattr(self, f"option_{i}", (i, "static"))


class Holders(liftnn.Module):
    """Variables, each inside some modules.

    Args:
      nesting: How many modules, one inside the other.
      n_static: How many static attributes each module has.
    """

    def __init__(self, nesting: int, n_static: int):
        self.parts = []
        for _ in range(32):
            held: Any = liftnn.Param(jnp.ones(()))
            for _ in range(nesting):
                held = Holder(held, n_static)
            self.parts.append(held)

    def __call__(self, x: jax.Array) -> jax.Array:
        for part in self.parts:
            while isinstance(part, Holder):
                part = part.held
            x = x + part
        return x


def itself_rows(rounds: int) -> Iterator[Row]:
    """Ten times the structure around the same Variables."""
    for name, few, many in (
        ("ten times the static attributes", (1, 10), (1, 100)),
        ("ten times the nesting", (1, 2), (10, 2)),
    ):
        made: dict[str, Run] = {}
        for label, shape in (("jax", few), ("liftnn", many)):  # here "jax" is the small one
            infer, _ = steps.functions(liftnn, "liftnn")
            made[label] = steps.calls(liftnn.jit(infer), Holders(*shape), jnp.ones(()))
        result = row(name, made, rounds, 1.05)
        result.microseconds = {"few": result.microseconds["jax"], "many": result.microseconds["liftnn"]}
        yield result


def many_variables_row(rounds: int, size: int) -> Row:
    """What each of many Variables adds to a call of JAX over a flat list; all are passed on, none is computed with."""
    model = liftnn.Module()
    model.parts = [liftnn.Param(jnp.zeros(())) for _ in range(size)]
    arrays = [jnp.zeros(()) for _ in range(size)]
    x = jnp.ones(())

    def first(model: Any, x: jax.Array) -> jax.Array:
        steps.count("liftnn")
        return x + 1

    made = {
        "liftnn": steps.calls(liftnn.jit(first, keep_unused=True), model, x),
        "jax": steps.calls(jax.jit(lambda arrays, x: x + 1, keep_unused=True), arrays, x),
    }
    times, retraces = compare(made, rounds)
    figure = times.excess("liftnn", "jax", 1e6 / size)
    return Row(
        f"{size:,} Variables, overhead per Variable over JAX",
        figure,
        0.15,
        "us",
        {},
        times.microseconds(),
        retraces,
    )


def tail_row(calls: int, repeats: int) -> Row:
    """How much slower one call in a hundred is, with garbage collection on: p99 / p50, against JAX's own."""
    made = {k: steps.CONTENDERS[k](16, train=True) for k in ("liftnn", "jax")}
    warm_up(made)
    before = steps.traces["liftnn"]
    spreads: dict[str, list[float]] = {k: [] for k in made}
    for _ in range(repeats):
        seconds: dict[str, list[float]] = {k: [] for k in made}
        for _ in range(calls // 100):  # by hundreds in turn, so that both meet the same disturbances
            for name, run in made.items():
                seconds[name] += [_clock(run) for _ in range(100)]
        for name, x in seconds.items():
            spreads[name].append(_quantile(x, 0.99) / statistics.median(x))
    ratios = [a / b for a, b in zip(spreads["liftnn"], spreads["jax"], strict=True)]
    shown = {f"p99/p50 of {k}": statistics.median(x) for k, x in spreads.items()}
    note = ", ".join(f"{k} {x:.2f}" for k, x in shown.items())
    retraces = steps.traces["liftnn"] - before
    return Row(f"p99/p50 of {calls:,} calls / JAX", median(ratios), 1.2, retraces=retraces, note=note)


def _clock(run: Run) -> float:
    start = time.perf_counter()
    run(1)
    return time.perf_counter() - start


def _quantile(samples: list[float], q: float) -> float:
    return sorted(samples)[int(q * (len(samples) - 1))]


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment(contenders.LEFT_OUT)
    rounds = chosen.rounds
    rows = list(depth_rows(rounds))
    rows.insert(1, small_infer_row(2 * rounds))
    rows += form_rows(rounds)
    rows += place_rows(rounds)
    rows += sharding_rows(rounds)
    rows += stateful_rows(rounds)
    rows.append(row("alternating train and eval functions, one model", two_functions(), rounds, 1.15))
    rows.append(row("alternating four models, one function", four_models(), rounds, 1.15))
    rows += itself_rows(rounds)
    rows += captured_rows(rounds)
    rows.append(many_variables_row(rounds, 10_000))
    rows.append(tail_row(2_000 if chosen.quick else 10_000, 3 if chosen.quick else 7))
    rows.append(flip_row(min(rounds, 31)))
    rows += flipping_rows(rounds)
    report("dispatch", rows, chosen.output, started)
    plot_dispatch(rows, chosen.output / "dispatch.png")


if __name__ == "__main__":
    main()
