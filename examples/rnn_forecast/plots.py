"""The picture of a forecast: three series, what was known of them, the forecast with its interval, and the truth."""

from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from data import DAY

SHOWN = 3
SHOWN_DAYS = 5  # of the known ones
TRUE_COLOR = "#30343b"
GRU_COLOR = "#1f5fbf"
BASE_COLOR = "#d98324"

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


def draw(
    past: np.ndarray,
    future: np.ndarray,
    forecast: tuple[np.ndarray, np.ndarray, np.ndarray],
    baseline: np.ndarray,
    path: Path,
) -> None:
    """Saves the first series as a PNG.

    Args:
      past: the known values, of shape (series, known hours).
      future: the true values after them, of shape (series, hours).
      forecast: lower bound, median and upper bound, of shape (series, hours) each.
      baseline: the values of the week before, of shape (series, hours).
      path: where to save.
    """
    known = min(past.shape[1], SHOWN_DAYS * DAY)
    before, after = np.arange(-known, 0) / DAY, np.arange(future.shape[1]) / DAY
    with style.context(STYLE):
        figure = Figure(figsize=(10, 6.4), layout="constrained")
        panels = figure.subplots(SHOWN, 1, sharex=True)
        for i, axes in enumerate(panels):
            low, median, high = (x[i] for x in forecast)
            axes.axvline(0, color="#8a8f98", linewidth=0.8)
            axes.plot(before, past[i, -known:], color=TRUE_COLOR, linewidth=1)
            axes.fill_between(
                after, low, high, color=GRU_COLOR, alpha=0.2, linewidth=0, label="90 % of the paths"
            )
            axes.plot(after, baseline[i], color=BASE_COLOR, linewidth=1, label="the week before")
            axes.plot(after, future[i], color=TRUE_COLOR, linewidth=1, label="true values")
            axes.plot(after, median, color=GRU_COLOR, linewidth=1.4, label="median of the paths")
        panels[0].set(
            title="Forecasts of series that were not seen in training", xlim=(-known / DAY, after[-1])
        )
        panels[-1].set(xlabel="days from the start of the forecast")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.savefig(path, dpi=110)
