"""Dtypes of layers, as `flax.nnx.nn.dtypes`."""

from liftnn._src.nn.dtypes import canonicalize_dtype, promote_dtype

__all__ = [
    "canonicalize_dtype",
    "promote_dtype",
]
