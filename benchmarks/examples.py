"""The examples against the same programs in Flax NNX: the time of a step, and the lines that are written for it.

    python benchmarks/examples.py [--quick] [--rounds N] [--output FOLDER]

A row is the step of an example at its default sizes. Both libraries start from the same weights and get the same data,
and the script stops if their losses differ. The lines are those of the model, its optimizer and the step, without
docstrings, comments and empty lines.
"""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
import sys
import tokenize
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any
from unittest import mock

import jax
import numpy as np
from flax import nnx
from machine import environment
from measure import Row, Run, options, report, take_turns

import liftnn

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"
STEPS = 3
"""So many losses are compared."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A step of one library, ready to run.

    Args:
      step: Called with `args`; returns a loss.
      args: The model, its optimizer, and the data.
      parts: The classes and functions whose lines count.
    """

    step: Callable[..., jax.Array]
    args: tuple[Any, ...]
    parts: Sequence[Any]

    def run(self, n: int) -> None:
        """Takes steps."""
        for _ in range(n):
            loss = self.step(*self.args)
        jax.block_until_ready(loss)

    def losses(self) -> list[float]:
        """Takes the first steps; returns their losses."""
        return [float(self.step(*self.args)) for _ in range(STEPS)]

    @property
    def lines(self) -> int:
        """The number of lines of code."""
        return sum(count_lines(part) for part in self.parts)


def count_lines(part: Any) -> int:
    """The lines of a class or function that hold code: neither docstrings nor comments alone."""
    part = inspect.unwrap(part)
    lines = iter(inspect.getsource(part).splitlines(keepends=True))
    found: set[int] = set()
    before = tokenize.INDENT
    silent = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
    for token in tokenize.generate_tokens(lambda: next(lines, "")):
        is_docstring = token.type == tokenize.STRING and before in (tokenize.INDENT, tokenize.NEWLINE)
        if token.type not in silent and not is_docstring:
            found.update(range(token.start[0], token.end[0] + 1))
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            before = token.type
    return len(found)


def train_gpt() -> tuple[Program, Program]:
    """examples/train_gpt: a decoder of stacked blocks, with accumulated gradients."""
    data, model_file, option_file, train = load("train_gpt", "data", "model", "options", "train")
    with mock.patch.object(sys, "argv", ["train.py"]):
        chosen = option_file.parse_options()
    shape = (chosen.micro_batches, chosen.batch_size // chosen.micro_batches, chosen.context + 1)
    batch = data.draw_windows(data.load(100_000).train, shape, (0, 0))
    model, optimizer = train.make(chosen)
    sizes = len(data.ALPHABET), chosen.layers, chosen.features, chosen.heads
    config = model_file.Config(*sizes, chosen.dropout, chosen.dtype)
    other = import_module("flax_train_gpt")
    theirs = other.make(config, chosen)
    weights = liftnn.state(model, liftnn.Param).to_pure_dict()
    weights["blocks"] = weights["blocks"]["layers"]
    state = nnx.state(theirs[0], nnx.Param)
    nnx.replace_by_pure_dict(state, jax.tree.map(jax.numpy.copy, weights))
    nnx.update(theirs[0], state)
    ours = [model_file.Block, model_file.Gpt, train.make, train.decays, train.loss_fn, train.train_step]
    flax = [other.rotate, other.attend, other.Block, other.Gpt, other.make, other.decays, other.loss_fn]
    return (
        Program(train.train_step, (model, optimizer, batch), ours),
        Program(other.train_step, (*theirs, batch), [*flax, other.train_step]),
    )


CASES: dict[str, Callable[[], tuple[Program, Program]]] = {"train_gpt: a step": train_gpt}


def load(example: str, *names: str) -> list[Any]:
    """Imports files of an example; those of another one with the same names are forgotten."""
    folder = EXAMPLES / example
    for file in folder.glob("*.py"):
        sys.modules.pop(file.stem, None)
    sys.path.insert(0, str(folder))
    try:
        return [import_module(name) for name in names]
    finally:
        sys.path.remove(str(folder))


def compare(name: str, make: Callable[[], tuple[Program, Program]], rounds: int) -> Row:
    """The row of an example."""
    ours, theirs = make()
    np.testing.assert_allclose(ours.losses(), theirs.losses(), rtol=1e-3)
    runs: dict[str, Run] = {"liftnn": ours.run, "flax": theirs.run}
    times = take_turns(runs, rounds)
    row = Row(name, times.ratio("liftnn", "flax"), None, microseconds=times.microseconds())
    row.at_best = times.at_best("liftnn", "flax")
    row.note = f"lines: {ours.lines} / {theirs.lines}"
    return row


def main() -> None:
    """Measures, prints and writes."""
    chosen = options(__doc__)
    started = environment()
    warnings.simplefilter("ignore")  # Flax deprecates what its users still write
    rows = [compare(name, make, max(5, chosen.rounds // 5)) for name, make in CASES.items()]
    report("examples", rows, chosen.output, started)


if __name__ == "__main__":
    main()
