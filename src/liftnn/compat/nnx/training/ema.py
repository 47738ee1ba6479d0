"""Moving averages, as `flax.nnx.training.ema`."""

from liftnn._src.optim.ema import EMA

__all__ = [
    "EMA",
]
