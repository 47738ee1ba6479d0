"""What stays behind: calls with fresh models must not fill the memory, and warm calls must make no garbage.

python benchmarks/growth.py [--quick] [--output FOLDER]
"""

from __future__ import annotations

import gc
import os
import pathlib
import weakref
from typing import Any

import jax
import optax
import steps
from machine import environment
from measure import Figure, Row, options, report

import liftnn


def resident() -> float:
    """Megabytes of memory that the process has; 0 where the system does not say."""
    statm = pathlib.Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if statm.exists() else 0.0


def exactly(name: str, value: float, target: float | None, unit: str, note: str = "") -> Row:
    """A row without a spread."""
    return Row(name, Figure(value, value, value), target, unit, note=note)


def fresh(step: Any, data: tuple[jax.Array, jax.Array], models: weakref.WeakSet[Any]) -> None:
    """Trains a new model for two steps and forgets it."""
    model = steps.STACKS[liftnn](2)
    optimizer = liftnn.Optimizer(model, optax.adam(1e-3))
    step(model, optimizer, *data)
    step(model, optimizer, *data)
    models.add(model)


def fresh_models(n: int) -> list[Row]:
    """Calls a step with `n` fresh models, each with a fresh optimizer and transformation."""
    step, data = liftnn.jit(steps.functions(liftnn, "liftnn")[1]), steps.batch()
    models: weakref.WeakSet[Any] = weakref.WeakSet()
    for _ in range(n // 10):
        fresh(step, data, models)
    gc.collect()
    before, objects = resident(), len(gc.get_objects())
    for _ in range(n - n // 10):
        fresh(step, data, models)
    gc.collect()
    after, more, alive = resident(), len(gc.get_objects()), len(models)
    gc.disable()
    fresh(step, data, models)
    waiting = len(models)
    gc.enable()
    calls = f"after {n:,} models"
    return [
        exactly(f"models alive {calls}", alive, 0, ""),
        exactly(f"fast paths alive {calls}", len(step._fast_paths.by_module), 1, ""),
        exactly(f"compiled programs {calls}", len(step._lifted._bound), 1, ""),
        exactly(f"traces {calls}", step.n_traces, 1, ""),
        exactly("memory growth over the last 90% of the models", after - before, 8, "MB"),
        exactly("growth in objects over the last 90% of the models", more - objects, 100, ""),
        exactly("models that only the garbage collector frees (0: freed at once)", waiting, None, ""),
    ]


def warm_calls(n: int) -> list[Row]:
    """What `n` warm calls leave to the garbage collector."""
    rows: list[Row] = []
    for depth in (2, 128):
        run = steps.CONTENDERS["liftnn"](depth, train=True)
        run(10)
        gc.collect()
        gc.disable()
        before, objects = gc.get_count()[0], len(gc.get_objects())
        run(n)
        after, more = gc.get_count()[0], len(gc.get_objects())
        gc.enable()
        note = f"{(more - objects) / n:.3f} objects remain"
        rows.append(
            exactly(
                f"gc.get_count growth per repeated call, depth {depth}", (after - before) / n, 1, "", note
            )
        )
    return rows


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    rows = fresh_models(1_000 if chosen.quick else 10_000) + warm_calls(500)
    report("growth", rows, chosen.output, started)


if __name__ == "__main__":
    main()
