"""Derivatives, as `flax.nnx.transforms.autodiff`."""

from liftnn._src.autodiff.selection import DiffState
from liftnn._src.compat.derivatives import custom_vjp, jvp, vjp
from liftnn._src.compat.transforms import grad, remat, value_and_grad
from liftnn._src.variables.state import State

__all__ = [
    "DiffState",
    "State",
    "custom_vjp",
    "grad",
    "jvp",
    "remat",
    "value_and_grad",
    "vjp",
]
