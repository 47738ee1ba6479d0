"""Initializers, as `flax.nnx.nn.initializers`."""

from liftnn._src.nn.initializers import *  # noqa: F403
from liftnn._src.nn.initializers import __all__ as __all__
