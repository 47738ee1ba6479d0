"""The steps of programs written for Flax NNX, with liftnn.compat.nnx and with Flax itself.

    python benchmarks/programs.py [--quick] [--rounds N] [--output FOLDER]

The programs are those of tests/compat/programs, where a test checks that both libraries compute the same. Each program
runs once; then each of its jitted functions is called again and again with copies of its first arguments.
"""

from __future__ import annotations

import pathlib
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
from machine import environment
from measure import Row, Run, options, report, take_turns

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "tests" / "compat" / "programs"
IMPORTS = {"flax": "from flax import nnx", "liftnn": "from liftnn.compat import nnx"}


class Recorder:
    """A jitted function that copies its first arguments.

    Args:
      function: The function.
      clone: Copies modules.
    """

    def __init__(self, function: Callable[..., Any], clone: Callable[[Any], Any]):
        self.function, self._clone = function, clone
        self.args: tuple[Any, ...] = ()

    def __call__(self, *args: Any) -> Any:
        if not self.args:
            self.args = self._clone(args)
        return self.function(*args)

    def run(self, n: int) -> None:
        """Calls it as often as told."""
        for _ in range(n):
            out = self.function(*self.args)
        jax.block_until_ready(jax.tree.leaves(out))


def run_program(path: pathlib.Path, library: str) -> dict[str, Recorder]:
    """Runs a program with one of the libraries; returns its jitted functions by name."""
    text = path.read_text()
    assert text.count(IMPORTS["flax"]) == 1
    names: dict[str, Any] = {"__name__": path.stem}
    text = text.replace(IMPORTS["flax"], IMPORTS[library])
    exec(compile(text, f"<{path.name} with {library}>", "exec", dont_inherit=True), names)
    steps = re.findall(r"@nnx\.jit\ndef (\w+)", text)
    recorders = {name: Recorder(names[name], names["nnx"].clone) for name in steps}
    names |= recorders
    names["main"]()
    return recorders


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    rows: list[Row] = []
    warnings.simplefilter("ignore")  # Flax deprecates what its users still write
    for path in sorted(FOLDER.glob("*.py")):
        print(path.stem, file=sys.stderr)
        ours, theirs = (run_program(path, library) for library in ("liftnn", "flax"))
        for name in ours:
            runs: dict[str, Run] = {"liftnn": ours[name].run, "flax": theirs[name].run}
            times = take_turns(runs, max(5, chosen.rounds // 2))
            label = f"{path.stem.replace('_', ' ')}: {name}"
            row = Row(label, times.ratio("liftnn", "flax"), 1.0, microseconds=times.microseconds())
            row.at_best = times.at_best("liftnn", "flax")
            rows.append(row)
        jax.clear_caches()
    report("programs", rows, chosen.output, started)


if __name__ == "__main__":
    main()
