"""The pictures of a run: the bound of each epoch, and digits that the model reads, makes up and mixes."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from model import Vae

SIZE = 28
COLUMNS = 12
GRAYS = 15
PAIRS = ((0, 1), (2, 7), (3, 8), (4, 9), (5, 6), (7, 1))
"""The digits between which the model interpolates."""

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
    """The mean evidence lower bound of each epoch, in nats."""

    train: list[float]
    test: list[float]


def draw_bounds(history: History, path: Path) -> None:
    """Saves the bounds by epoch as a PNG."""
    epochs = np.arange(1, len(history.test) + 1)
    with style.context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        curves = (("train", history.train, "#8a8f98"), ("test", history.test, "#1f5fbf"))
        for name, values, color in curves:
            label = f"{name} ({values[-1]:.2f})"
            axes.plot(epochs, values, color=color, marker="o", markersize=4, label=label)
        axes.set(title="Evidence lower bound", xlabel="epoch", ylabel="nats")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower right")
        figure.savefig(path, dpi=150)


def draw_digits(model: Vae, images: jax.Array, labels: np.ndarray, path: Path) -> None:
    """Saves reconstructions, samples and interpolations as a PNG.

    Args:
      model: the autoencoder.
      images: binary test images of shape (n, 784).
      labels: what they are, of shape (n,).
      path: where to save.
    """
    seen = images[: 3 * COLUMNS].reshape(3, COLUMNS, -1)
    again = model.reconstruct(seen)
    rows = jnp.stack([seen, again], axis=1).reshape(6, COLUMNS, -1)
    first, last = (images[np.array([np.flatnonzero(labels == pair[i])[i] for pair in PAIRS])] for i in (0, 1))
    panels = (
        ("Test images above reconstructions", rows),
        ("Samples", model.sample(6 * COLUMNS).reshape(6, COLUMNS, -1)),
        ("Interpolations", model.interpolate(first, last, COLUMNS)),
    )
    with style.context(STYLE):
        figure = Figure(figsize=(12, 2.3), layout=ConstrainedLayoutEngine(wspace=0.06))
        for axes, (title, pixels) in zip(figure.subplots(1, 3), panels, strict=True):
            plot_grid(axes, title, np.asarray(pixels))
        figure.savefig(path, dpi=110)


def plot_grid(axes: Axes, title: str, pixels: np.ndarray) -> None:
    """Images in rows and columns: pixels of shape (rows, columns, 784), between 0 and 1."""
    rows, columns, _ = pixels.shape
    # all on one canvas: axes of their own would take matplotlib ten times as long
    canvas = (
        pixels.reshape(rows, columns, SIZE, SIZE).transpose(0, 2, 1, 3).reshape(rows * SIZE, columns * SIZE)
    )
    canvas = np.round(canvas * GRAYS) / GRAYS  # fewer of them make a smaller file
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title)
    axes.axis("off")
