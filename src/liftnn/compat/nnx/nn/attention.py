"""Attention, as `flax.nnx.nn.attention`."""

from liftnn._src.compat.defaults import first_from
from liftnn._src.compat.modules import Module
from liftnn._src.compat.rope import RoPE, dot_product_attention_with_rope
from liftnn._src.nn.attention import MultiHeadAttention
from liftnn._src.nn.attention_masks import combine_masks, make_attention_mask, make_causal_mask
from liftnn._src.nn.dot_product_attention import dot_product_attention, dot_product_attention_weights
from liftnn._src.nn.linear import default_kernel_init
from liftnn._src.nn.linear_general import LinearGeneral
from liftnn._src.nn.normalization import LayerNorm

__all__ = [
    "LayerNorm",
    "LinearGeneral",
    "Module",
    "MultiHeadAttention",
    "RoPE",
    "combine_masks",
    "default_kernel_init",
    "dot_product_attention",
    "dot_product_attention_weights",
    "dot_product_attention_with_rope",
    "first_from",
    "make_attention_mask",
    "make_causal_mask",
]
