"""The picture of a comparison: how accuracy grew in each way of training, and which vowels are confused."""

import dataclasses
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = ("#d98324", "#1f5fbf", "#2f8f5b", "#8a8f98")
SHOWN = 1  # LoRA

STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.axisbelow": True,
    "axes.edgecolor": "#8a8f98",
    "grid.color": "#e6e8eb",
    "font.size": 10,
    "legend.frameon": False,
}


@dataclasses.dataclass
class Run:
    """What was measured of one way to train.

    Args:
      title: its name.
      weights: how many were trained.
      steps: after which of them the accuracy was measured.
      accuracies: the accuracies on the test clips.
      predictions: the last predictions for the test clips, of shape (n,).
    """

    title: str
    weights: int
    steps: list[int]
    accuracies: list[float]
    predictions: np.ndarray


def draw(runs: list[Run], labels: np.ndarray, words: tuple[str, ...], path: Path) -> None:
    """Saves the picture as a PNG.

    Args:
      runs: one for each way to train.
      labels: the numbers of the vowels of the test clips, of shape (n,).
      words: a word with each vowel.
      path: where to save.
    """
    with style.context(STYLE):
        figure = Figure(figsize=(10, 4.4), layout="constrained")
        curves, matrix = figure.subplots(1, 2, width_ratios=(1.25, 1))
        plot_curves(curves, runs)
        plot_confusions(matrix, runs[SHOWN], labels, words)
        figure.savefig(path, dpi=110)


def plot_curves(axes: Axes, runs: list[Run]) -> None:
    """The accuracy on the test clips by step, with the last one and the number of weights in the legend."""
    for run, color in zip(runs, COLORS, strict=True):
        label = f"{run.title}: {run.weights:,} weights, {run.accuracies[-1]:.1%}"
        values = [100 * x for x in run.accuracies]
        axes.plot(run.steps, values, color=color, marker="o", markersize=4, label=label)
    axes.grid(visible=True)
    axes.set(title="Accuracy on test clips", xlabel="step", ylabel="%", ylim=(0, 100))
    axes.legend(loc="lower right")


def plot_confusions(axes: Axes, run: Run, labels: np.ndarray, words: tuple[str, ...]) -> None:
    """The part of the clips of each vowel that is taken for each vowel, in percent."""
    size = len(words)
    counts = np.zeros((size, size))
    np.add.at(counts, (labels, run.predictions), 1)
    percent = 100 * counts / counts.sum(1, keepdims=True)
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(percent >= 1):
        color = "white" if percent[row, column] > 60 else "black"
        axes.text(
            column, row, f"{percent[row, column]:.0f}", ha="center", va="center", color=color, fontsize=8
        )
    axes.set_xticks(range(size), words, rotation=45, ha="right")
    axes.set_yticks(range(size), words)
    axes.set(title=f"Confusions of {run.title}, %", xlabel="predicted", ylabel="true")
