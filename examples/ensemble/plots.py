"""The picture of an ensemble: a reliability diagram, and the accuracy of each member by its learning rate."""

from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from scores import BINS, Reliability, reliability

SINGLE_COLOR = "#8a8f98"
ENSEMBLE_COLOR = "#1f5fbf"

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


def draw(rates: np.ndarray, clean: np.ndarray, noisy: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """Saves the picture as a PNG.

    Args:
      rates: the learning rate of each member, of shape (members,).
      clean: the probabilities for the test digits, of shape (members, n, 10).
      noisy: those for the same digits with noise.
      labels: what the digits are, of shape (n,).
      path: where to save.
    """
    with style.context(STYLE):
        figure = Figure(figsize=(10, 4.4), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=(3.2, 1), width_ratios=(1, 1.1))
        diagram = figure.add_subplot(grid[0, 0])
        counts = figure.add_subplot(grid[1, 0], sharex=diagram)
        singles = [(p.argmax(-1) == labels).mean() for p in clean]
        curves = (
            ("one model", reliability(noisy, labels), SINGLE_COLOR),
            (f"ensemble of {len(noisy)}", reliability(noisy.mean(0), labels), ENSEMBLE_COLOR),
        )
        plot_reliability(diagram, counts, curves)
        together = (clean.mean(0).argmax(-1) == labels).mean()
        plot_rates(figure.add_subplot(grid[:, 1]), rates, np.array(singles), float(together))
        figure.savefig(path, dpi=110)


def plot_reliability(diagram: Axes, counts: Axes, curves: tuple[tuple[str, Reliability, str], ...]) -> None:
    """The accuracy of the examples in each bin of confidence, above the share of the examples in it."""
    diagram.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=(0, (4, 3)))
    width = 1 / BINS
    centers = (np.arange(BINS) + 0.5) * width
    for i, (name, bins, color) in enumerate(curves):
        shown = bins.counts >= 0.0005 * bins.counts.sum()  # a few examples say nothing
        confidence, accuracy = bins.confidence[shown], bins.accuracy[shown]
        diagram.plot(confidence, accuracy, color=color, marker="o", markersize=4, label=name)
        share = 100 * bins.counts / bins.counts.sum()
        counts.bar(centers + (i - 0.5) * 0.4 * width, share, 0.4 * width, color=color)
    diagram.set(title="Calibration on digits with noise", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    diagram.tick_params(labelbottom=False)
    diagram.legend(loc="upper left")
    counts.set(xlabel="confidence", ylabel="% of digits")


def plot_rates(axes: Axes, rates: np.ndarray, singles: np.ndarray, together: float) -> None:
    """The accuracy of each member against its learning rate, with that of the ensemble as a line."""
    axes.axhline(100 * together, color=ENSEMBLE_COLOR, label=f"ensemble of {len(rates)} ({together:.2%})")
    axes.plot(rates, 100 * singles, "o", color=SINGLE_COLOR, label=f"one model (mean {singles.mean():.2%})")
    axes.set(title="Accuracy on test digits", xlabel="learning rate", ylabel="%", xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="lower center")
