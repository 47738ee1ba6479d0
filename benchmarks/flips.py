"""What `train()` and `eval()` between calls cost."""

from __future__ import annotations

from typing import Any

import jax
import stateful
import steps
from measure import Row, median, take_turns

import liftnn


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
    return Row("flipping train/eval before each call, a call", median(seconds), None, "us", retraces=retraces)
