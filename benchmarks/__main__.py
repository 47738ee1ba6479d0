"""Runs all benchmarks, each in a process of its own, and writes the tables, the figures and the plot.

python benchmarks [--quick] [--rounds N] [--output FOLDER]
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time

from machine import environment_line
from measure import options

SCRIPTS = (
    "dispatch",
    "tracing",
    "memory",
    "eager",
    "arrays",
    "imports",
    "growth",
    "stacked",
    "decoding",
    "programs",
    "example_steps",
    "checkpoints",
    "weights",
    "sharded",
)


def summary(output: pathlib.Path) -> str:
    """All tables, and the machine and versions that they are from."""
    parts = [
        "# Results",
        "",
        "Written by `make bench`. `docs/benchmarks.md` explains the rows and columns.",
        "",
    ]
    for name in SCRIPTS:
        record = json.loads((output / f"{name}.json").read_text())
        table = (output / f"{name}.md").read_text()
        parts += [f"## {name}", "", environment_line(record), "", table]
    return "\n".join(parts)


def main() -> int:
    """Runs the scripts one after the other; gives 1 if one of them fails."""
    output = options(__doc__).output
    folder = pathlib.Path(__file__).parent
    failed = []
    for name in SCRIPTS:
        start = time.perf_counter()
        print(f"== {name}", flush=True)
        if subprocess.run(
            [sys.executable, str(folder / f"{name}.py"), *sys.argv[1:]], check=False
        ).returncode:
            failed.append(name)
        print(f"   {time.perf_counter() - start:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    else:
        (output / "README.md").write_text(summary(output))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
