"""Containers and training states, as `flax.nnx.helpers`."""

from liftnn._src.compat.containers import Dict, List
from liftnn._src.compat.modules import Module
from liftnn._src.compat.sequential import Sequential
from liftnn._src.compat.splitting import GraphDef
from liftnn._src.compat.training import TrainState
from liftnn._src.rngs import Rngs
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

__all__ = [
    "Dict",
    "GraphDef",
    "List",
    "Module",
    "Rngs",
    "Sequential",
    "State",
    "TrainState",
    "Variable",
]
