"""Printing, as `flax.nnx.visualization`."""

from liftnn._src.summary.public import display

__all__ = [
    "display",
]
