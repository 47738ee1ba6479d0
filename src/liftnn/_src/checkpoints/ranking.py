"""Which checkpoints are the best, and which are kept, by the metrics in their indexes."""

from __future__ import annotations

import os
import pathlib

from liftnn import errors
from liftnn._src.checkpoints.restoring import index_file, read_index
from liftnn._src.checkpoints.steps import find_steps


class Ranking:
    """The order of the checkpoints in a folder.

    Args:
      folder: The folder.
      best: The name of the metric to compare; None to compare steps.
      sign: 1 if higher values of the metric are better, else -1.
    """

    def __init__(self, folder: pathlib.Path, best: str | None, sign: int):
        self._folder = folder
        self._best = best
        self._sign = sign
        self._read: dict[tuple[int, int, int], dict[str, float]] = {}  # by the identity of the file

    def rank(self, steps: list[int]) -> list[int]:
        """Return the steps that have the metric, the best one last, and of equal ones the latest last."""
        found = {step: self._metrics_of(step).get(str(self._best)) for step in steps}
        known = {step: self._sign * x for step, x in found.items() if x is not None and x == x}
        return sorted(known, key=lambda step: (known[step], step))

    def find_old(self, max_to_keep: int) -> list[int]:
        """Return the checkpoints that are not kept: those without the metric first, then the worst ones.

        Other folders with a number as their name are the user's.
        """
        steps = [step for step in find_steps(self._folder) if index_file(self._folder / str(step)).is_file()]
        if len(steps) <= max_to_keep:
            return []
        ranked = [] if self._best is None else self.rank(steps)
        others = [step for step in steps if step not in ranked]
        kept = {*[*others, *ranked][-max_to_keep:], steps[-1]}
        return [step for step in steps if step not in kept]

    def _metrics_of(self, step: int) -> dict[str, float]:
        """Return the metrics of a step; a folder may be removed and written again."""
        try:
            stat = os.stat(index_file(self._folder / str(step)))
            key = (stat.st_ino, stat.st_mtime_ns, step)
            if key not in self._read:
                self._read[key] = read_index(self._folder / str(step)).metrics
        except (OSError, errors.CheckpointError):
            return {}
        return self._read[key]
