"""Containers and training states, as `flax.nnx.helpers`."""

from liftnn._src.compat.containers import Dict, List
from liftnn._src.compat.training import TrainState
from liftnn._src.nn.sequential import Sequential

__all__ = [
    "Dict",
    "List",
    "Sequential",
    "TrainState",
]
