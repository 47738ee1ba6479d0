"""Linear layers and convolutions, as `flax.nnx.nn.linear`."""

from liftnn._src.compat.defaults import first_from
from liftnn._src.compat.modules import Module
from liftnn._src.nn.conv import Conv
from liftnn._src.nn.conv_transpose import ConvTranspose
from liftnn._src.nn.einsum import Einsum
from liftnn._src.nn.embed import Embed, default_embed_init
from liftnn._src.nn.linear import Linear, default_bias_init, default_kernel_init
from liftnn._src.nn.linear_general import LinearGeneral
from liftnn._src.nn.windows import canonicalize_padding

__all__ = [
    "Conv",
    "ConvTranspose",
    "Einsum",
    "Embed",
    "Linear",
    "LinearGeneral",
    "Module",
    "canonicalize_padding",
    "default_bias_init",
    "default_embed_init",
    "default_kernel_init",
    "first_from",
]
