"""The picture of a run: the loss of each step, and on held-out files."""

import dataclasses
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

TRAIN_COLOR = "#8a8f98"
VALIDATION_COLOR = "#1f5fbf"

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


@dataclasses.dataclass
class History:
    """What a run has measured: the loss of each step, and some losses on held-out files with their steps."""

    train: list[float] = dataclasses.field(default_factory=list)
    steps: list[int] = dataclasses.field(default_factory=list)
    validation: list[float] = dataclasses.field(default_factory=list)


def draw_losses(history: History, path: Path) -> None:
    """Saves both losses by step as a PNG."""
    losses = np.asarray(history.train)
    steps = np.arange(1, len(losses) + 1)
    window = max(1, len(losses) // 40)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    with style.context(STYLE):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(steps, losses, color=TRAIN_COLOR, alpha=0.35, linewidth=0.8)
        label = f"training, mean of {window} steps ({smooth[-1]:.3f})"
        axes.plot(steps[window - 1 :], smooth, color=TRAIN_COLOR, label=label)
        label = f"held-out files ({history.validation[-1]:.3f})"
        axes.plot(
            history.steps,
            history.validation,
            color=VALIDATION_COLOR,
            marker="o",
            markersize=5,
            label=label,
        )
        lowest = min(smooth.min(), *history.validation)
        axes.set(
            title="Loss of the next character",
            xlabel="step",
            ylabel="cross-entropy (nats)",
            xlim=(0, steps[-1] * 1.02),
            ylim=(lowest - 0.1, lowest + 2),
        )
        axes.legend()
        figure.savefig(path, dpi=100)
