"""Derivatives, as `flax.nnx.transforms.autodiff`."""

from liftnn._src.autodiff.selection import DiffState
from liftnn._src.compat.gradients import grad, value_and_grad
from liftnn._src.compat.transforms import custom_vjp, jvp, remat, vjp

__all__ = [
    "DiffState",
    "custom_vjp",
    "grad",
    "jvp",
    "remat",
    "value_and_grad",
    "vjp",
]
