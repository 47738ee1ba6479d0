"""Layers: one file for each kind, and what they share.

All share arguments, dtypes, initializers and activations; convolutions and pooling share windows, normalizations share
moments, wrappers share wrapped weights, and recurrent layers share carries, sequences and orthogonal initializers.
A stack of equal layers shows each of them by a view.
"""

# pyright: reportUnusedImport=false

from liftnn._src.nn.activations import (
    celu,
    elu,
    gelu,
    glu,
    hard_sigmoid,
    hard_silu,
    hard_swish,
    hard_tanh,
    identity,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    logsumexp,
    one_hot,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    soft_sign,
    softmax,
    softplus,
    standardize,
    swish,
    tanh,
)
from liftnn._src.nn.attention import MultiHeadAttention
from liftnn._src.nn.attention_masks import combine_masks, make_attention_mask, make_causal_mask
from liftnn._src.nn.batch_norm import BatchNorm
from liftnn._src.nn.bidirectional import Bidirectional
from liftnn._src.nn.cells import GRUCell, RNNCellBase, SimpleCell
from liftnn._src.nn.conv import Conv
from liftnn._src.nn.conv_transpose import ConvTranspose
from liftnn._src.nn.dot_product_attention import dot_product_attention, dot_product_attention_weights
from liftnn._src.nn.dropout import Dropout
from liftnn._src.nn.dtypes import promote_dtype
from liftnn._src.nn.einsum import Einsum
from liftnn._src.nn.embed import Embed
from liftnn._src.nn.instance_norm import InstanceNorm
from liftnn._src.nn.linear import Linear
from liftnn._src.nn.linear_general import LinearGeneral
from liftnn._src.nn.lora import LoRA, LoRALinear
from liftnn._src.nn.lstm import LSTMCell, OptimizedLSTMCell
from liftnn._src.nn.normalization import GroupNorm, LayerNorm, RMSNorm
from liftnn._src.nn.pooling import avg_pool, max_pool, min_pool, pool
from liftnn._src.nn.prelu import PReLU
from liftnn._src.nn.rnn import RNN
from liftnn._src.nn.rotary_embedding import rotary_embedding
from liftnn._src.nn.sequential import Sequential
from liftnn._src.nn.spectral_norm import SpectralNorm
from liftnn._src.nn.stack import Stack
from liftnn._src.nn.weight_norm import WeightNorm
from liftnn._src.publish import PICKLED, publish

publish(promote_dtype, module=PICKLED)
publish(*globals().values())
