"""Printing, as `flax.nnx.visualization`."""

from liftnn._src.compat.tabulate import display

__all__ = [
    "display",
]
