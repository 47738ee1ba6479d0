"""How long `import liftnn` takes, against `import jax, optax`; each in a new process, in turns.

python benchmarks/imports.py [--quick] [--rounds N] [--output FOLDER]
"""

from __future__ import annotations

import os
import random
import subprocess
import sys

from measure import Row, Times, environment, options, report

PROGRAM = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(what: str) -> float:
    """How long a new process takes for an import."""
    environ = {
        k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"
    }  # as where pip has installed it
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(what)], check=True, capture_output=True, text=True, env=environ
    )
    return float(done.stdout)


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    names = {"liftnn": "liftnn", "jax": "jax, optax"}
    for what in names.values():  # the first import of all writes byte code
        seconds(what)
    found: dict[str, list[float]] = {name: [] for name in names}
    order = list(names)
    for _ in range(max(5, chosen.rounds // 8)):
        random.shuffle(order)
        for name in order:
            found[name].append(seconds(names[name]))
    times = Times(found)
    figure = times.ratio("liftnn", "jax")
    rows = [Row("import liftnn / import jax, optax", figure, 1.10, microseconds=times.microseconds())]
    rows[0].at_best = times.at_best("liftnn", "jax")
    report("imports", rows, chosen.output, started)


if __name__ == "__main__":
    main()
