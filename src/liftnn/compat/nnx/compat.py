"""The functions of liftnn.compat.nnx with the conventions of graph mode, which are its only ones: `flax.nnx.compat`."""

from liftnn.compat.nnx.graphlib import *  # noqa: F403
from liftnn.compat.nnx.module import *  # noqa: F403
from liftnn.compat.nnx.rnglib import *  # noqa: F403
from liftnn.compat.nnx.spmd import *  # noqa: F403
from liftnn.compat.nnx.transforms.autodiff import *  # noqa: F403
from liftnn.compat.nnx.transforms.compilation import *  # noqa: F403
from liftnn.compat.nnx.transforms.iteration import *  # noqa: F403
from liftnn.compat.nnx.transforms.transforms import *  # noqa: F403
