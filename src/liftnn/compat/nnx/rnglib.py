"""Streams of random keys, as `flax.nnx.rnglib`."""

from liftnn._src.compat.modules import Module
from liftnn._src.compat.rngs import fork_rngs, split_rngs, with_rngs
from liftnn._src.reseed import reseed
from liftnn._src.rngs import Rngs, RngStream
from liftnn._src.split_rngs import restore_rngs
from liftnn._src.trees import Key
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import RngCount, RngKey, RngState

Pytree = Module

__all__ = [
    "Key",
    "Pytree",
    "RngCount",
    "RngKey",
    "RngState",
    "RngStream",
    "Rngs",
    "Variable",
    "fork_rngs",
    "reseed",
    "restore_rngs",
    "split_rngs",
    "with_rngs",
]
