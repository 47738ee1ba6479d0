"""How long `import liftnn` takes, against `import jax, optax`; each in a new process, in turns.

liftnn loads optax with its Optimizer, so there is a row for programs that train, which import both. What JAX's import
leaves makes a full collection of garbage due, which then falls into whatever comes next. So there are rows in which all
collect none.

python benchmarks/imports.py [--quick] [--rounds N] [--output FOLDER]
"""

from __future__ import annotations

import os
import random
import subprocess
import sys

from machine import environment
from measure import Row, Times, options, report

PROGRAM = "{}import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
COLLECTING = {"": "", ", without garbage collection": "import gc; gc.disable(); "}
IMPORTS = {"liftnn": "liftnn", "liftnn, optax": "liftnn, optax", "jax": "jax, optax"}


def seconds(what: str, before: str = "") -> float:
    """How long a new process takes for an import, after a statement that does not count."""
    environ = {
        k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"
    }  # as where pip has installed it
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before, what)],
        check=True,
        capture_output=True,
        text=True,
        env=environ,
    )
    return float(done.stdout)


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    for what in IMPORTS.values():  # the first import of all writes byte code
        seconds(what)
    cases = [(note, name) for note in COLLECTING for name in IMPORTS]
    found: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    for _ in range(max(5, chosen.rounds // 8)):
        random.shuffle(cases)
        for note, name in cases:
            found[note, name].append(seconds(IMPORTS[name], COLLECTING[note]))
    rows = []
    for note in COLLECTING:
        times = Times({name: found[note, name] for name in IMPORTS})
        for name in ("liftnn", "liftnn, optax"):
            target = None if note else 1.10
            row = Row(f"import {name} / import jax, optax{note}", times.ratio(name, "jax"), target)
            row.microseconds, row.at_best = times.microseconds(), times.at_best(name, "jax")
            rows.append(row)
    report("imports", rows, chosen.output, started)


if __name__ == "__main__":
    main()
