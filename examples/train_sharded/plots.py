"""The picture of a run: the loss of each step."""

import math
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

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


def draw_losses(losses: list[float], path: Path) -> None:
    """Saves the loss by step, in bits per byte, as a PNG."""
    bits = np.asarray(losses) / math.log(2)
    steps = np.arange(1, len(bits) + 1)
    window = max(1, len(bits) // 20)
    with style.context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(steps, bits, color="#8a8f98", alpha=0.5, linewidth=0.8, label="each step")
        if window > 1:
            smooth = np.convolve(bits, np.ones(window) / window, mode="valid")
            axes.plot(
                steps[window - 1 :] - window // 2, smooth, color="#1f5fbf", label=f"mean of {window} steps"
            )
        axes.set(title="Training loss, bits per byte", xlabel="step", ylim=(0, None))
        axes.legend()
        figure.savefig(path, dpi=150)
