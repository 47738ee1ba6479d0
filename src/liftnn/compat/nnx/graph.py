"""The same as `graphlib`, as `flax.nnx.graph`."""

from liftnn.compat.nnx.graphlib import *  # noqa: F403
from liftnn.compat.nnx.graphlib import __all__ as __all__
