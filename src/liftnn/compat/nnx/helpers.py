"""Containers and training states, as `flax.nnx.helpers`."""

from liftnn._src.compat.containers import Dict, List
from liftnn._src.compat.sequential import Sequential
from liftnn._src.compat.training import TrainState

__all__ = [
    "Dict",
    "List",
    "Sequential",
    "TrainState",
]
