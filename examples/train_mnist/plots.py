"""The two pictures of a training run: its curves, and the digits the network gets wrong."""

import dataclasses
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from data import Digits

TRAIN_COLOR = "#8a8f98"
TEST_COLOR = "#1f5fbf"
WRONG_COLOR = "#c0392b"
COLUMNS, ROWS = 12, 7
CELL_HEIGHT, CELL_WIDTH = 42, 34  # pixels for a digit of 28 x 28 and its label

STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "#8a8f98",
    "grid.color": "#e6e8eb",
    "font.size": 10,
    "legend.frameon": False,
}


@dataclasses.dataclass
class History:
    """What a run has measured: a loss for each step, and for each epoch the accuracy on both sets.

    Args:
      labels: what the test digits are, of shape (n,).
    """

    labels: np.ndarray
    losses: list[np.ndarray] = dataclasses.field(default_factory=list)
    train_accuracy: list[float] = dataclasses.field(default_factory=list)
    test_accuracy: list[float] = dataclasses.field(default_factory=list)
    predictions: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int32))

    def add(self, losses: np.ndarray, train_accuracy: float, predictions: np.ndarray) -> None:
        """Adds one epoch, with the predictions for the test digits after it."""
        self.losses.append(losses)
        self.train_accuracy.append(train_accuracy)
        self.test_accuracy.append(float((predictions == self.labels).mean()))
        self.predictions = predictions


def draw_curves(history: History, path: Path) -> None:
    """Saves the loss by step and the accuracies by epoch as a PNG."""
    with style.context(STYLE):
        figure = Figure(figsize=(10, 4), layout="constrained")
        loss, accuracy = figure.subplots(1, 2)
        plot_losses(loss, history)
        plot_accuracies(accuracy, history)
        figure.savefig(path, dpi=150)


def plot_losses(axes: Axes, history: History) -> None:
    """The loss of each step, and its mean over a twentieth of an epoch, against epochs."""
    losses = np.concatenate(history.losses)
    steps = len(history.losses[0])
    epochs = np.arange(1, len(losses) + 1) / steps
    window = max(1, steps // 20)
    axes.plot(epochs, losses, color=TRAIN_COLOR, alpha=0.35, linewidth=0.8, label="each step")
    if window > 1:
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        axes.plot(epochs[window - 1 :], smooth, color=TEST_COLOR, label=f"mean of {window} steps")
    axes.set(title="Training loss", xlabel="epoch", yscale="log", xlim=(0, epochs[-1]))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.legend()


def plot_accuracies(axes: Axes, history: History) -> None:
    """Both accuracies, with the last of each in the legend."""
    epochs = np.arange(1, len(history.test_accuracy) + 1)
    curves = (
        ("train, in training mode", history.train_accuracy, TRAIN_COLOR),
        ("test", history.test_accuracy, TEST_COLOR),
    )
    for name, values, color in curves:
        label = f"{name} ({values[-1]:.2%})"
        axes.plot(epochs, 100 * np.asarray(values), color=color, marker="o", markersize=5, label=label)
    axes.set(title="Accuracy", xlabel="epoch", ylabel="%")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right")


def draw_mistakes(digits: Digits, predictions: np.ndarray, path: Path) -> None:
    """Saves the digits predicted wrong as a PNG, as many as there is room for.

    Args:
      digits: images of shape (n, 28, 28, 1) and labels of shape (n,).
      predictions: the digits predicted, of shape (n,).
      path: where to save.
    """
    wrong = np.flatnonzero(predictions != digits.labels)
    shown = wrong[: COLUMNS * ROWS]
    shown = shown[np.argsort(digits.labels[shown], kind="stable")]
    rows = max(1, -(-len(shown) // COLUMNS))
    # all on one canvas: axes of their own would take matplotlib ten times as long
    canvas = np.full((rows * CELL_HEIGHT, COLUMNS * CELL_WIDTH), np.nan)
    with style.context(STYLE):
        figure = Figure(figsize=(COLUMNS, rows * CELL_HEIGHT / CELL_WIDTH + 0.5))
        axes = figure.add_axes((0, 0, 1, 1 - 0.5 / figure.get_figheight()))
        for place, index in enumerate(shown):
            top, left = place // COLUMNS * CELL_HEIGHT, place % COLUMNS * CELL_WIDTH
            canvas[top + 12 : top + 40, left + 3 : left + 31] = digits.images[index, ..., 0]
            text = f"{digits.labels[index]} → {predictions[index]}"
            axes.text(left + 17, top + 10, text, ha="center", color=WRONG_COLOR, fontweight="bold")
        axes.imshow(canvas, cmap="gray_r", vmin=-20, vmax=255, aspect="auto")
        axes.axis("off")
        figure.suptitle(mistakes_title(len(wrong), len(predictions), len(shown)), x=0.01, ha="left")
        figure.savefig(path, dpi=150)


def mistakes_title(wrong: int, total: int, shown: int) -> str:
    """How many digits are wrong, how many of them are shown, and how to read the labels."""
    part = f"; here are {shown} of them" if shown < wrong else ""
    return f"{wrong:,} of {total:,} test digits are read wrong{part}   (true → predicted)"
