"""The picture of a run: what the model predicts in the plane, and the memory of a training step."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import style
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

COLORS = ("#c0603b", "#1f5fbf")
UNROLLED_COLOR = "#8a8f98"
SHOWN_POINTS = 600
GRID = 120

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
    predict: Callable[[jax.Array], jax.Array],
    x: np.ndarray,
    labels: np.ndarray,
    memory: dict[int | None, int],
    path: Path,
) -> None:
    """Saves both as a PNG.

    Args:
      predict: the log-odds of the second class for points of shape (n, 2).
      x: points of shape (n, 2).
      labels: their classes.
      memory: bytes by the number of steps unrolled; None is the implicit gradient.
      path: where to save.
    """
    with style.context(STYLE):
        figure = Figure(figsize=(9.5, 4.2), layout="constrained")
        plane, bytes_of = figure.subplots(1, 2)
        line = np.linspace(-1.15, 1.15, GRID)
        grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        odds = np.asarray(predict(jnp.asarray(grid))).reshape(GRID, GRID)
        colors = LinearSegmentedColormap.from_list("classes", [COLORS[0], "white", COLORS[1]])
        plane.imshow(
            1 / (1 + np.exp(-odds)), extent=(-1.15, 1.15) * 2, origin="lower", cmap=colors, alpha=0.45
        )
        for label, color in enumerate(COLORS):
            shown = x[:SHOWN_POINTS][labels[:SHOWN_POINTS] == label]
            plane.plot(*shown.T, ".", color=color, markersize=3)
        plane.set(title="New points, and the predicted class", xticks=[], yticks=[])
        depths = [n for n in memory if n is not None]
        bytes_of.plot(
            depths,
            [memory[n] / 1e6 for n in depths],
            color=UNROLLED_COLOR,
            marker="o",
            markersize=4,
            label="through all steps",
        )
        implicit = [memory[None] / 1e6] * 2
        bytes_of.plot([0, depths[-1]], implicit, color=COLORS[1], label="implicit function theorem")
        bytes_of.set(title="Memory of a training step", xlabel="steps", ylabel="MB", ylim=(0, None))
        bytes_of.legend()
        figure.savefig(path, dpi=150)
