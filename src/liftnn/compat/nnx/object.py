"""The same as `pytreelib`, as `flax.nnx.object`."""

from liftnn.compat.nnx.pytreelib import *  # noqa: F403
from liftnn.compat.nnx.pytreelib import __all__ as __all__
