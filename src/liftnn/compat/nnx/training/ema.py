"""Averages of models, as `flax.nnx.ema`."""

from liftnn._src.compat.training import EMA

__all__ = [
    "EMA",
]
