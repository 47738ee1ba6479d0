"""The plot of the dispatch costs: one group a step, one bar a library, on a logarithmic scale."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter
from measure import Row

COLOURS = {
    "liftnn": "#3f51b5",
    "jax": "#9e9e9e",
    "nnx.jit_partial": "#fdd49e",
    "nnx.cached_partial": "#fdae6b",
    "nnx.jit": "#d95f02",
    "eqx.filter_jit": "#1b9e77",
    "brainstate.jit": "#66a61e",
    "spx.jit": "#a6761d",
}
LABELS = {
    "jax": "jax.jit, nested dicts (= 1)",
    "nnx.jit_partial": "Flax nnx.jit_partial (tree mode)",
    "nnx.cached_partial": "Flax nnx.cached_partial",
    "nnx.jit": "Flax nnx.jit",
    "eqx.filter_jit": "Equinox filter_jit",
    "brainstate.jit": "brainstate jit",
    "spx.jit": "SpectraX jit",
}


def plot_dispatch(rows: Sequence[Row], path: pathlib.Path) -> None:
    """Draws the rows in which liftnn stands against its peers.

    Args:
      rows: All rows; those without peers are left out.
      path: Where to write the PNG.
    """
    rows = [row for row in rows if len(row.peers) > 2 and "donated" not in row.name]
    mpl.use("Agg")
    figure, axes = plt.subplots(figsize=(11.6, 4.2), dpi=150, layout="constrained")
    shown = {"liftnn", *(peer for row in rows for peer in row.peers)}
    names = [name for name in COLOURS if name in shown]
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        at, heights = [], []
        for x, row in enumerate(rows):
            ratio = row.figure.value if name == "liftnn" else row.peers.get(name)
            if ratio is not None:
                at.append(x + (i - (len(names) - 1) / 2) * width)
                heights.append(ratio)
        bars = axes.bar(
            at, heights, width * 0.92, color=COLOURS[name], label=LABELS.get(name, name), zorder=2
        )
        labels = [f"{h:.2f}" if h < 2 else f"{h:.1f}" if h < 10 else f"{h:.0f}" for h in heights]
        inside = [0.7 < h < 1.1 for h in heights]  # above the bar the label would lie on the line at 1
        for within, options in (
            (False, {"padding": 2, "fontsize": 6}),
            (True, {"padding": -9, "color": "white", "fontsize": 5.2}),
        ):
            chosen = [x if y is within else "" for x, y in zip(labels, inside, strict=True)]
            axes.bar_label(bars, chosen, **options)
    axes.axhline(1, color="#424242", linewidth=1, zorder=3, label=LABELS["jax"])
    axes.set_yscale("log")
    axes.set_ylim(0.5, max(max(row.peers.values()) for row in rows) * 1.8)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}x"))
    axes.set_xticks(range(len(rows)), [_wrapped(row.name) for row in rows], fontsize=8)
    axes.set_ylabel("time of a repeated call / hand-written jax.jit")
    axes.grid(axis="y", which="major", color="#e0e0e0", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def _wrapped(name: str) -> str:
    return name.replace(", depth", "\ndepth").replace("Dropout, ", "Dropout,\n")
