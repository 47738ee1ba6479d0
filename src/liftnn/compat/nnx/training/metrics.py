"""Metrics, as `flax.nnx.metrics`."""

from liftnn._src.compat.metrics import Accuracy, Average, Metric, MultiMetric, Welford
from liftnn._src.compat.modules import Module
from liftnn._src.metrics import Statistics
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import MetricState

Pytree = Module

__all__ = [
    "Accuracy",
    "Average",
    "Metric",
    "MetricState",
    "MultiMetric",
    "Pytree",
    "Statistics",
    "Variable",
    "Welford",
]
