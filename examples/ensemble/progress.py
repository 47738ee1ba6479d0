"""A progress bar on a terminal; where the output is a file or a pipe, a line every few seconds."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

REFRESH = 0.1  # seconds between two drawings of the bar
INTERVAL = 10.0  # seconds between two lines
WIDTH = 24
CLEAR = "\r\x1b[K"  # back to the start of the line, then empty it


class Bar:
    """Iterates over steps and shows how far it got, how fast, and whatever `note` is given.

    Example:
      bar = Bar(batches, label="epoch 1/5", size=128, unit="images")
      for batch in bar:
          ...
          if bar.due:
              bar.draw("loss 0.1234")

    Args:
      steps: what to iterate over.
      label: stands before the bar.
      size: how many `unit` one step is.
      unit: what the rate counts.
    """

    def __init__(self, steps: Sequence[Any], *, label: str, size: int, unit: str) -> None:
        self.steps, self.label, self.size, self.unit = steps, label, size, unit
        self.shown = sys.stdout.isatty()
        self.done = 0
        self.start = self.drawn = time.perf_counter()

    def __iter__(self) -> Iterator[Any]:
        for step in self.steps:
            yield step
            if self.done == 0:
                self.start = time.perf_counter()  # the first step compiles, and would spoil the rate
            self.done += 1
        self.wipe()

    @property
    def due(self) -> bool:
        """Whether it is time to draw again, so that a note worth computing is computed only then."""
        return time.perf_counter() - self.drawn > (REFRESH if self.shown else INTERVAL)

    def draw(self, note: str) -> None:
        """Draws the bar over the last one; without a terminal, writes a line."""
        self.drawn = time.perf_counter()
        done, total = self.done + 1, len(self.steps)
        rate = self.done * self.size / (self.drawn - self.start)
        counts = f"{done}/{total}  {note}  {rate:,.0f} {self.unit}/s"
        if not self.shown:
            print(f"{self.label} {counts}", flush=True)
            return
        filled = WIDTH * done // total
        bar = "━" * filled + " " * (WIDTH - filled)
        print(f"{CLEAR}{self.label} {bar} {counts}", end="", flush=True)

    def wipe(self) -> None:
        """Clears the line for what is printed next."""
        if self.shown:
            print(CLEAR, end="", flush=True)
