"""Branches and abstract evaluation, as `flax.nnx.transforms.transforms`."""

from liftnn._src.compat.transforms import checkify, cond, eval_shape, make_jaxpr, switch

__all__ = [
    "checkify",
    "cond",
    "eval_shape",
    "make_jaxpr",
    "switch",
]
