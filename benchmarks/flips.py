"""What `train()` and `eval()` between calls cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import stateful
import steps
from compare import warm_up
from measure import Row, Run, median, take_turns

import liftnn


class Block(liftnn.Module):
    """A layer with BatchNorm and Dropout, both of which `train()` and `eval()` switch."""

    def __init__(self, rngs: liftnn.Rngs):
        self.linear = liftnn.Linear(steps.WIDTH, steps.WIDTH, rngs=rngs)
        self.norm = liftnn.BatchNorm(steps.WIDTH, rngs=rngs)
        self.dropout = liftnn.Dropout(0.1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dropout(jax.nn.relu(self.norm(self.linear(x))))


class Network(liftnn.Module):
    """Some such layers."""

    def __init__(self, depth: int):
        rngs = liftnn.Rngs(0)
        self.blocks = [Block(rngs) for _ in range(depth)]

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x)
        return x


def flipping_rows(rounds: int) -> Iterator[Row]:
    """One model that is flipped between two calls, over two models that stay in their modes."""
    for depth in (5, 50):
        flipped, training, evaluating = (Network(depth) for _ in range(3))
        training.train()
        evaluating.eval()
        made = {"flipped": _flipped(flipped), "without": _two_calls(evaluating, training)}
        warm_up(made)
        before = steps.traces["liftnn"]
        times = take_turns(made, rounds)
        name = f"eval(), call, train(), call / the two calls, {depth} layers"
        row = Row(name, times.ratio("flipped", "without"), 2.0, retraces=steps.traces["liftnn"] - before)
        row.at_best = times.at_best("flipped", "without")
        row.microseconds = times.microseconds()
        yield row


def _forward(model: Network, x: jax.Array) -> jax.Array:
    steps.count("liftnn")
    return model(x)


def _flipped(model: Network) -> Run:
    x, _ = steps.batch()
    f = liftnn.jit(_forward)

    def run(n: int) -> None:
        out = None
        for _ in range(n):
            model.eval()
            f(model, x)
            model.train()
            out = f(model, x)
        jax.block_until_ready(out)

    return run


def _two_calls(evaluating: Network, training: Network) -> Run:
    x, _ = steps.batch()
    f = liftnn.jit(_forward)

    def run(n: int) -> None:
        out = None
        for _ in range(n):
            f(evaluating, x)
            out = f(training, x)
        jax.block_until_ready(out)

    return run


def flip_row(rounds: int) -> Row:
    """`train()` and `eval()` between calls change static attributes: not free, but compiled twice, ever."""
    model = stateful.make_model(liftnn)
    x, _ = stateful.batch()

    @liftnn.jit
    def forward(model: Any, x: jax.Array) -> jax.Array:
        steps.count("liftnn")
        out = model(x)
        liftnn.pop(model, liftnn.Intermediate)
        return out

    def run(n: int) -> None:
        out = None
        for _ in range(n):
            model.train()
            forward(model, x)
            model.eval()
            out = forward(model, x)
        jax.block_until_ready(out)

    run(3)
    before = steps.traces["liftnn"]
    times = take_turns({"liftnn": run}, rounds)
    seconds = [s * 1e6 / 2 for s in times.seconds["liftnn"]]
    retraces = steps.traces["liftnn"] - before
    return Row(
        "train() or eval() before each call, time per call", median(seconds), None, "us", retraces=retraces
    )
