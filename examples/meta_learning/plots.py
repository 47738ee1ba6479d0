"""The picture of a run: one new task as both models learn it, and the error on many."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks import LARGEST_X, Task

SHOWN_STEPS = (0, 1, 5)
STEP_COLORS = ("#c3c8cf", "#7fa6e0", "#1f5fbf")
TRUE_COLOR = "#2b2f36"
MODEL_COLORS = ("#1f5fbf", "#8a8f98")

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


class Result(NamedTuple):
    """What is drawn of a model.

    Attributes:
      name: stands above its curves.
      errors: the mean error on new tasks after 0, 1, ... steps.
      curves: what it predicts for one task, by the number of steps, on an even grid of x.
    """

    name: str
    errors: np.ndarray
    curves: dict[int, np.ndarray]


def draw(results: Sequence[Result], task: Task, path: Path) -> None:
    """Saves the curves of each model for one task, and the errors of all, as a PNG."""
    with style.context(STYLE):
        figure = Figure(figsize=(11, 3.8), layout="constrained")
        *curves, errors = figure.subplots(1, len(results) + 1)
        for axes, result in zip(curves, results, strict=True):
            plot_curves(axes, result, task)
        for result, color in zip(results, MODEL_COLORS, strict=True):
            errors.plot(result.errors, color=color, marker="o", markersize=4, label=result.name)
        errors.set(title="Mean error on new tasks", xlabel="steps on each", ylim=(0, None))
        errors.legend()
        figure.savefig(path, dpi=150)


def plot_curves(axes: Axes, result: Result, task: Task) -> None:
    """The sine, the points to learn from, and what the model predicts after some steps."""
    x = np.linspace(-LARGEST_X, LARGEST_X, len(result.curves[SHOWN_STEPS[0]]))
    amplitude, phase = float(task.amplitude[0, 0]), float(task.phase[0, 0])
    axes.plot(x, amplitude * np.sin(x - phase), color=TRUE_COLOR, linestyle="--", linewidth=1, label="sine")
    for steps, color in zip(SHOWN_STEPS, STEP_COLORS, strict=True):
        axes.plot(x, result.curves[steps], color=color, label=f"{steps} step{'s' * (steps != 1)}")
    axes.plot(task.support.x[:, 0], task.support.y[:, 0], "o", color=TRUE_COLOR, markersize=4)
    axes.set(title=result.name, xlabel="x", xlim=(-LARGEST_X, LARGEST_X), ylim=(-6, 6))
    axes.legend(ncols=2, loc="upper center", fontsize=9, columnspacing=1)
