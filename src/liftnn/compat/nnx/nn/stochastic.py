"""Dropout, as `flax.nnx.nn.stochastic`."""

from liftnn._src.compat.defaults import first_from
from liftnn._src.compat.modules import Module
from liftnn._src.nn.dropout import Dropout

__all__ = [
    "Dropout",
    "Module",
    "first_from",
]
