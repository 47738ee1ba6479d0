"""Optimizers, as `flax.nnx.optimizer`."""

from liftnn._src.compat.modules import Module
from liftnn._src.compat.training import ModelAndOptimizer, Optimizer, to_opt_state
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import OptState, Param

OptArray = OptVariable = OptState  # one type for what Flax divides in two

Pytree = Module

__all__ = [
    "ModelAndOptimizer",
    "OptArray",
    "OptState",
    "OptVariable",
    "Optimizer",
    "Param",
    "Pytree",
    "Variable",
    "to_opt_state",
]
