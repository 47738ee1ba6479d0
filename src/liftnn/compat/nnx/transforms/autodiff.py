"""Derivatives, as `flax.nnx.transforms.autodiff`."""

from liftnn._src.autodiff.selection import DiffState
from liftnn._src.compat.derivatives import custom_vjp, jvp, vjp
from liftnn._src.compat.transforms import grad, remat, value_and_grad

__all__ = [
    "DiffState",
    "custom_vjp",
    "grad",
    "jvp",
    "remat",
    "value_and_grad",
    "vjp",
]
