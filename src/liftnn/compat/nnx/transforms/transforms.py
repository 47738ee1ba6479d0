"""Branches and abstract evaluation, as `flax.nnx.transforms.transforms`."""

from liftnn._src.compat.modules import Module
from liftnn._src.compat.sharding import eval_shape
from liftnn._src.compat.transforms import checkify, cond, make_jaxpr, switch

__all__ = [
    "Module",
    "checkify",
    "cond",
    "eval_shape",
    "make_jaxpr",
    "switch",
]
