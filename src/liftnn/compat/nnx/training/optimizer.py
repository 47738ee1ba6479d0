"""Optimizers, as `flax.nnx.optimizer`."""

from liftnn._src.compat.training import ModelAndOptimizer, Optimizer
from liftnn._src.variables.variable_types import OptState

__all__ = [
    "ModelAndOptimizer",
    "OptState",
    "Optimizer",
]
