"""Optimizers, as `flax.nnx.optimizer`."""

from liftnn._src.compat.training import ModelAndOptimizer, Optimizer
from liftnn._src.variables.variable_types import OptState

OptArray = OptVariable = OptState  # one type for what Flax divides in two

__all__ = [
    "ModelAndOptimizer",
    "OptArray",
    "OptState",
    "OptVariable",
    "Optimizer",
]
