"""Dropout, as `flax.nnx.nn.stochastic`."""

from liftnn._src.nn.dropout import Dropout

__all__ = [
    "Dropout",
]
