"""A comparison of warm calls as a row: contenders take turns, and what a warm call must not do is counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import steps
from measure import Row, Run, Times, take_turns

from liftnn._src.graph.walk import Walk


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Counts what a warm call must not do: graph walks."""
    found = {"walks": 0}
    original = Walk.__init__

    def init(self: Walk, *args: Any, **kwargs: Any) -> None:
        found["walks"] += 1
        original(self, *args, **kwargs)

    Walk.__init__ = init
    try:
        yield found
    finally:
        Walk.__init__ = original


def warm_up(contenders: dict[str, Run]) -> None:
    """Compiles; a call more than the first lets structure settle that the first call makes."""
    for run in contenders.values():
        run(3)


def compare(contenders: dict[str, Run], rounds: int) -> tuple[Times, int]:
    """Times contenders; also how often liftnn traced or walked after the warm-up."""
    warm_up(contenders)
    before = steps.traces.get("liftnn", 0)
    times = take_turns(contenders, rounds)
    with counted() as found:
        contenders["liftnn"](4)
    return times, steps.traces.get("liftnn", 0) - before + found["walks"]


def row(name: str, contenders: dict[str, Run], rounds: int, target: float | None) -> Row:
    """The row of a comparison whose target is a ratio to hand-written JAX."""
    times, retraces = compare(contenders, rounds)
    peers = {peer: times.ratio(peer, "jax").value for peer in contenders if peer not in ("liftnn", "jax")}
    result = Row(name, times.ratio("liftnn", "jax"), target, "x", peers, times.microseconds(), retraces)
    result.at_best = times.at_best("liftnn", "jax")
    print(f"{name}: {result.figure.value:.3f}, at best {result.at_best:.3f}", flush=True)
    return result
