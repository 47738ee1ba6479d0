"""Checkpoints of a run: `--resume` saves one after each epoch, and goes on from the last one."""

import argparse
from typing import Any

import numpy as np

import liftnn as nnx
import plots

OPTIONS = (
    "model",
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "label_smoothing",
    "ema",
    "seed",
    "limit",
)
"""The options that decide the result; a run goes on only with those it was started with."""


class ResumeError(Exception):
    """A run cannot go on; the message is one line that says why and what to do."""


class Run:
    """All that the rest of a run depends on, in a folder.

    Args:
      options: the options of the command line.
      modules: what a training step updates; None for what there is not.
      shuffle: decides the order of the images.
      history: what was measured so far.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        modules: tuple[nnx.Module | None, ...],
        shuffle: np.random.Generator,
        history: plots.History,
    ) -> None:
        self.modules = modules
        self.shuffle = shuffle
        self.history = history
        self.options = {name: getattr(options, name) for name in OPTIONS}
        self.is_kept = options.resume
        self.checkpoints = nnx.Checkpoints(options.output / "checkpoints", max_to_keep=2)

    def load(self) -> int:
        """Goes back to the end of the last epoch that was saved, and returns its number, or 0.

        Raises:
          ResumeError: if that run had other options, or its checkpoint cannot be read.
        """
        if not self.is_kept or not self.checkpoints.steps():
            return 0
        try:
            found = self.checkpoints.restore(*self.modules, strict=False)
        except nnx.CheckpointError as error:
            raise ResumeError(" ".join(str(error).splitlines())) from None
        self.check_options(found.values["options"])
        self.shuffle.bit_generator.state = found.values["shuffle"]
        for name, x in found.values["history"].items():
            setattr(self.history, name, x)
        return found.step

    def check_options(self, saved: dict[str, Any]) -> None:
        """Raises an error if the run in the folder was started with other options."""
        for name, x in self.options.items():
            option = f"--{name.replace('_', '-')}"
            if saved[name] == x:
                continue
            if saved[name] is None:
                raise ResumeError(
                    f"the run in the output folder has no {option}; pass none, or another --output"
                )
            other = "" if x is None else f", not {x}"
            raise ResumeError(
                f"the run in the output folder has {option} {saved[name]}{other}; pass that, or another --output"
            )

    def save(self, epoch: int) -> None:
        """Saves the state after an epoch, while the next one runs."""
        if not self.is_kept:
            return
        history = {name: x for name, x in vars(self.history).items() if name != "labels"}
        values = {"options": self.options, "shuffle": self.shuffle.bit_generator.state, "history": history}
        self.checkpoints.save(epoch, *self.modules, values=values)
