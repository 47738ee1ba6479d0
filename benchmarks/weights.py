"""Saving and loading weight files: liftnn / the safetensors library called by hand with a dict of the same arrays.

python benchmarks/weights.py [--quick] [--rounds N] [--output FOLDER]

The model has 1 GB in 64 arrays (quick: 64 MB). Both sides take turns on the same disk, and write in place of a file of
the same size. By hand, a dict of arrays is filled by `jax.device_put`. liftnn also writes and compares checksums; "load
without checksums" leaves them out. Peak memory is that of a process of its own, which saves, or which loads into a
model that has values: the median of three.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
from checkpoints import Arrays
from machine import environment
from measure import Figure, Row, Times, options, report
from safetensors.numpy import load_file, save_file

import liftnn


class Ours:
    """Saves and loads with liftnn."""

    def __init__(self, model: Arrays):
        self.model = model

    def save(self, file: str) -> None:
        """Writes the model."""
        liftnn.save_weights(file, self.model)

    def load(self, file: str) -> None:
        """Fills the model."""
        liftnn.load_weights(file, self.model)
        jax.block_until_ready([part.value for part in self.model.parts])

    def load_without_checksums(self, file: str) -> None:
        """Fills the model."""
        liftnn.load_weights(file, self.model, verify=False)
        jax.block_until_ready([part.value for part in self.model.parts])


class ByHand:
    """Saves and loads with safetensors, as its documentation does."""

    def __init__(self, model: Arrays):
        self.arrays = {f"parts.{i}": part.value for i, part in enumerate(model.parts)}
        del model.parts

    def save(self, file: str) -> None:
        """Writes the dict."""
        save_file({name: np.asarray(x) for name, x in self.arrays.items()}, file)

    def load(self, file: str) -> None:
        """Replaces the dict."""
        self.arrays = {name: jax.device_put(x) for name, x in load_file(file).items()}
        jax.block_until_ready(self.arrays)

    load_without_checksums = load


SIDES: dict[str, Any] = {"liftnn": Ours, "safetensors": ByHand}
WHAT = {
    "save": "save",
    "load": "load",
    "load_without_checksums": "load without checksums",
}


def times(megabytes: int, rounds: int) -> dict[str, Times]:
    """The times of both sides, by what is timed."""
    sides = {name: make(Arrays(megabytes)) for name, make in SIDES.items()}
    folder = tempfile.mkdtemp()
    found: dict[str, dict[str, list[float]]] = {}
    order = list(sides)
    for i in range(rounds + 1):
        random.Random(i).shuffle(order)
        for name in order:
            for what in WHAT:
                os.sync()  # what the other side has written is not to be paid here
                start = time.perf_counter()
                getattr(sides[name], what)(os.path.join(folder, name))
                seconds = time.perf_counter() - start
                if i:  # the first round is a warm-up
                    found.setdefault(what, {}).setdefault(name, []).append(seconds)
    shutil.rmtree(folder)
    return {what: Times(seconds) for what, seconds in found.items()}


MEMORY = """
import sys
import checkpoints, weights
side, megabytes, what, file = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
contender = weights.SIDES[side](weights.Arrays(megabytes))
getattr(contender, what)(file)
print(checkpoints.most_resident())
"""


def peaks(side: str, megabytes: int, processes: int) -> list[float]:
    """The median of the peak memory of new processes that save, and of others that load."""
    folder = tempfile.mkdtemp()
    found: dict[str, list[int]] = {"save": [], "load": []}  # which reads what was saved
    for _ in range(processes):
        for what in found:
            command = [sys.executable, "-c", MEMORY, side, str(megabytes), what, os.path.join(folder, "file")]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=sys.path[0])
            found[what].append(int(done.stdout.splitlines()[-1]))
    shutil.rmtree(folder)
    return [statistics.median(x) for x in found.values()]


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    megabytes = 64 if chosen.quick else 1000
    found = times(megabytes, 5 if chosen.quick else max(5, chosen.rounds // 12))
    rows: list[Row] = []
    for what, name in WHAT.items():
        row = Row(f"{name}, {megabytes:,} MB", found[what].ratio("liftnn", "safetensors"), 1.1)
        row.microseconds = found[what].microseconds()
        row.at_best = found[what].at_best("liftnn", "safetensors")
        rows.append(row)
    memory = {side: peaks(side, megabytes, 3) for side in SIDES}
    for i, name in enumerate(("saving", "loading")):
        ratio = memory["liftnn"][i] / max(1, memory["safetensors"][i])
        note = f"{memory['liftnn'][i] / 1e6:,.0f} / {memory['safetensors'][i] / 1e6:,.0f} MB"
        rows.append(Row(f"peak memory of {name}", Figure(ratio, ratio, ratio), 1.05, note=note))
    report("weights", rows, chosen.output, started)


if __name__ == "__main__":
    main()
