"""Metrics and optimizers by module: `metrics`, `optimizer`, as `flax.nnx.training`."""

from liftnn.compat.nnx.training import metrics, optimizer

__all__ = ["metrics", "optimizer"]
