"""Metrics and optimizers by module: `ema`, `metrics`, `optimizer`, as `flax.nnx.training`."""

from liftnn.compat.nnx.training import ema, metrics, optimizer

__all__ = ["ema", "metrics", "optimizer"]
