"""The picture of a training run: the return of the episodes against the steps taken."""

from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from cartpole import MOST_STEPS

COLOR = "#1f5fbf"
LIMIT_COLOR = "#8a8f98"

STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "#8a8f98",
    "grid.color": "#e6e8eb",
    "font.size": 10,
    "legend.frameon": False,
}


class History:
    """The mean return of the episodes that ended in each update.

    Args:
      size: the steps of all environments in an update.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.returns: list[float] = []

    def add(self, returns: np.ndarray, episodes: np.ndarray) -> None:
        """Adds some updates: the sum of the returns of all episodes that ended, and how many did, of shape (n,).

        An update in which none did has the mean of the one before.
        """
        for total, count in zip(returns, episodes, strict=True):
            self.returns.append(float(total / count) if count else self.latest)

    @property
    def latest(self) -> float:
        """The mean return in the last update, or nan if there is none."""
        return self.returns[-1] if self.returns else float("nan")


def draw_returns(history: History, path: Path) -> None:
    """Saves the return by steps as a PNG."""
    thousands = np.arange(1, len(history.returns) + 1) * history.size / 1000
    with style.context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.axhline(MOST_STEPS, color=LIMIT_COLOR, linestyle="--", linewidth=1, label="longest episode")
        axes.plot(thousands, history.returns, color=COLOR, label="episodes that ended, actions drawn")
        axes.set(title="Mean return", xlabel="thousand steps", xlim=(0, thousands[-1]), ylim=(0, None))
        axes.legend(loc="lower right")
        figure.savefig(path, dpi=150)
