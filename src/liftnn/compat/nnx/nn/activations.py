"""Activations, as `flax.nnx.nn.activations`."""

from liftnn._src.nn import activations as _own
from liftnn._src.nn.activations import *  # noqa: F403
from liftnn._src.nn.prelu import PReLU

__all__ = ["PReLU"]
__all__ += _own.__all__
