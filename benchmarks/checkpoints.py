"""Saving and restoring a model: liftnn / Orbax called by hand with a dict of the same arrays.

python benchmarks/checkpoints.py [--quick] [--rounds N] [--output FOLDER]

The model has 1 GB in 64 arrays (quick: 128 MB). All take turns, in new folders of the same disk. Orbax is called as in
its documentation. It compresses files by default, and liftnn does not; so a column compares Orbax without compression
with Orbax as it is by default. In each turn three checkpoints are saved and one is restored. "save" ends when the
checkpoint is complete; "the next step after an asynchronous save" is the call of save and one step of a training, while
the files are written; both are the median of the three. Peak memory is that of a process of its own, which saves, and
then restores: the median of five, since it depends on which of Orbax's threads run together.
"""

from __future__ import annotations

import json
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from machine import environment
from measure import Figure, Row, Times, options, report

import liftnn

ARRAYS = 64


class Arrays(liftnn.Module):
    """Arrays of random numbers, which do not compress well."""

    def __init__(self, megabytes: int):
        shape = (megabytes * 1_000_000 // ARRAYS // 4 // 1000, 1000)
        numbers = np.random.default_rng(0)
        self.parts = [
            liftnn.Param(jnp.asarray(numbers.standard_normal(shape, np.float32))) for _ in range(ARRAYS)
        ]


def timed(
    save: Callable[[int], Any], work: Callable[[], Any], wait: Callable[[], Any]
) -> tuple[float, float]:
    """The seconds until the work after a save is done, and until the checkpoint is complete: medians of three saves."""
    save(0)  # what is loaded at first use is not timed
    wait()
    found: list[tuple[float, float]] = []
    for step in (1, 2, 3):
        start = time.perf_counter()
        save(step)
        work()
        delay = time.perf_counter() - start
        wait()
        found.append((delay, time.perf_counter() - start))
    delays, totals = zip(*found, strict=True)
    return statistics.median(delays), statistics.median(totals)


class Ours:
    """Saves and restores with liftnn."""

    def __init__(self, model: Arrays):
        self.model = model

    def save(self, folder: str, work: Callable[[], Any]) -> tuple[float, float]:
        """The seconds until the work that follows is done, and until the checkpoint is complete."""
        with liftnn.Checkpoints(folder) as checkpoints:
            return timed(lambda step: checkpoints.save(step, self.model), work, checkpoints.wait)

    def restore(self, folder: str) -> None:
        """Fills the model."""
        liftnn.restore(folder, self.model, step=1)
        jax.block_until_ready([part.value for part in self.model.parts])


class ByHand:
    """Saves and restores with Orbax, as its documentation does."""

    compress = True

    def __init__(self, model: Arrays):
        self.tree = {f"part_{i}": part.value for i, part in enumerate(model.parts)}

    def save(self, folder: str, work: Callable[[], Any]) -> tuple[float, float]:
        """The seconds until the work that follows is done, and until the checkpoint is complete."""
        with self.manager(folder) as manager:
            args = ocp.args.PyTreeSave(self.tree)
            return timed(lambda step: manager.save(step, args=args), work, manager.wait_until_finished)

    def manager(self, folder: str) -> ocp.CheckpointManager:
        """The manager of a folder with the checkpoints of one tree."""
        handler = None if self.compress else ocp.PyTreeCheckpointHandler(use_compression=False)
        return ocp.CheckpointManager(folder, item_handlers=handler)

    def restore(self, folder: str) -> None:
        """Replaces the dict."""
        restore_args = {name: ocp.ArrayRestoreArgs(sharding=x.sharding) for name, x in self.tree.items()}
        args = ocp.args.PyTreeRestore(item=self.tree, restore_args=restore_args)
        with self.manager(folder) as manager:
            self.tree = manager.restore(1, args=args)
        jax.block_until_ready(self.tree)


class Uncompressed(ByHand):
    """Saves without compression, as liftnn does by default."""

    compress = False


UNCOMPRESSED = "orbax, not compressed"
SIDES: dict[str, Any] = {"liftnn": Ours, "orbax": ByHand, UNCOMPRESSED: Uncompressed}


@jax.jit
def training(x: jax.Array) -> jax.Array:
    """Some work on small arrays, 20 ms or so."""
    return jax.lax.fori_loop(0, 60, lambda i, x: jnp.tanh(x @ x), x)


def turn(side: Any, work: Callable[[], Any]) -> dict[str, float]:
    """The times of one contender, in a folder of its own."""
    folder = tempfile.mkdtemp()
    try:
        delay, save = side.save(folder, work)
        start = time.perf_counter()
        side.restore(folder)
        return {"save": save, "restore": time.perf_counter() - start, "delay": delay}
    finally:
        shutil.rmtree(folder)


def times(megabytes: int, rounds: int) -> dict[str, Times]:
    """The times of all contenders, by what is timed."""
    model = Arrays(megabytes)
    sides = {name: make(model) for name, make in SIDES.items()}
    x = jnp.ones((256, 256)) / 256

    def work() -> Any:
        return training(x).block_until_ready()

    work()
    found: dict[str, dict[str, list[float]]] = {}
    order = list(sides)
    for i in range(rounds + 1):
        random.Random(i).shuffle(order)
        for name in order:
            for what, seconds in turn(sides[name], work).items():
                if i:  # the first round is a warm-up
                    found.setdefault(what, {}).setdefault(name, []).append(seconds)
    return {what: Times(seconds) for what, seconds in found.items()}


MEMORY = """
import json, shutil, sys, tempfile
import checkpoints
side, megabytes = sys.argv[1], int(sys.argv[2])
contender = checkpoints.SIDES[side](checkpoints.Arrays(megabytes))
folder = tempfile.mkdtemp()
contender.save(folder, lambda: None)
saved = checkpoints.most_resident()
contender.restore(folder)
restored = checkpoints.most_resident()
shutil.rmtree(folder)
print(json.dumps([saved, restored]))
"""


def most_resident() -> int:
    """The most bytes of memory that this process has had; 0 where the system does not say."""
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def peaks_of(side: str, megabytes: int, processes: int) -> list[float]:
    """The median of the peak memory of new processes after saving, and after restoring too."""
    found = [peak(side, megabytes) for _ in range(processes)]
    return [statistics.median(x) for x in zip(*found, strict=True)]


def peak(side: str, megabytes: int) -> list[int]:
    """The peak memory of a new process after saving, and after restoring too."""
    command = [sys.executable, "-c", MEMORY, side, str(megabytes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=sys.path[0])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    megabytes = 128 if chosen.quick else 1000
    found = times(megabytes, 5 if chosen.quick else max(5, chosen.rounds // 12))
    names = {
        "save": "save",
        "restore": "restore",
        "delay": "the next step after an asynchronous save",
    }
    rows: list[Row] = []
    for what, name in names.items():
        ratio = found[what].ratio("liftnn", "orbax")
        row = Row(f"{name}, {megabytes:,} MB", ratio, 1.0 if what == "delay" else 1.1)
        row.microseconds, row.at_best = found[what].microseconds(), found[what].at_best("liftnn", "orbax")
        row.peers = {UNCOMPRESSED: found[what].ratio(UNCOMPRESSED, "orbax").value}
        rows.append(row)
    peaks = {side: peaks_of(side, megabytes, 5) for side in ("liftnn", "orbax")}
    for i, name in enumerate(("saving", "restoring")):
        ratio = peaks["liftnn"][i] / max(1, peaks["orbax"][i])
        note = f"{peaks['liftnn'][i] / 1e6:,.0f} / {peaks['orbax'][i] / 1e6:,.0f} MB"
        rows.append(Row(f"peak memory of {name}", Figure(ratio, ratio, ratio), 1.05, note=note))
    report("checkpoints", rows, chosen.output, started)


if __name__ == "__main__":
    main()
