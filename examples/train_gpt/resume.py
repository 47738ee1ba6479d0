"""Checkpoints of a run: `--resume` saves one at each report, and goes on from the last one."""

import argparse
from typing import Any

import liftnn as nnx
import plots

IGNORED = ("output", "resume", "prompt", "temperature")
"""The options that do not decide the losses; a run goes on only with the others that it was started with."""


class ResumeError(Exception):
    """A run cannot go on; the message is one line that says why and what to do."""


class Run:
    """All that the rest of a run depends on, in a folder. The data of a step depend on its number alone.

    Args:
      options: the options of the command line.
      modules: the model, with the random stream of its dropout, and the optimizer.
      history: what was measured so far.
    """

    def __init__(
        self, options: argparse.Namespace, modules: tuple[nnx.Module, ...], history: plots.History
    ) -> None:
        self.modules = modules
        self.history = history
        self.options = {name: x for name, x in vars(options).items() if name not in IGNORED}
        self.is_kept = options.resume
        self.checkpoints = nnx.Checkpoints(options.output / "checkpoints", max_to_keep=2)

    def load(self) -> int:
        """Goes back to the last report that was saved, and returns its step, or 0.

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
        for name, x in found.values["history"].items():
            setattr(self.history, name, x)
        return found.step

    def check_options(self, saved: dict[str, Any]) -> None:
        """Raises an error if the run in the folder was started with other options."""
        for name, x in self.options.items():
            if saved[name] != x:
                option = f"--{name.replace('_', '-')}"
                raise ResumeError(
                    f"the run in the output folder has {option} {saved[name]}, not {x}; pass that, or another --output"
                )

    def save(self, step: int) -> None:
        """Saves the state after a step, while the next one runs."""
        if self.is_kept:
            values = {"options": self.options, "history": vars(self.history)}
            self.checkpoints.save(step, *self.modules, values=values)
