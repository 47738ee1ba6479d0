"""Compilation, as `flax.nnx.transforms.compilation`."""

from liftnn._src.compat.partials import jit_partial
from liftnn._src.compat.transforms import jit, shard_map
from liftnn._src.prefixes.prefix import StateSharding

__all__ = [
    "StateSharding",
    "jit",
    "jit_partial",
    "shard_map",
]
