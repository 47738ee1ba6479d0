"""Runs all benchmarks, each in a process of its own, and writes the tables, the figures and the plot.

python benchmarks [--quick] [--rounds N] [--output FOLDER]
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time

SCRIPTS = ("dispatch", "tracing", "memory", "eager", "imports", "growth")


def main() -> int:
    """Runs the scripts one after the other; gives 1 if one of them fails."""
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
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
