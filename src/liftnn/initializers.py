"""Initializers: functions of a random key, a shape and a dtype, as in `jax.nn.initializers`."""

from liftnn._src.nn.initializers import *  # noqa: F403
from liftnn._src.nn.initializers import __all__ as __all__
