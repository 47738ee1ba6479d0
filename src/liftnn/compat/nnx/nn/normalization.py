"""Normalization, as `flax.nnx.nn.normalization`."""

from liftnn._src.compat.defaults import first_from
from liftnn._src.compat.modules import Module
from liftnn._src.nn.batch_norm import BatchNorm
from liftnn._src.nn.instance_norm import InstanceNorm
from liftnn._src.nn.normalization import GroupNorm, LayerNorm, RMSNorm
from liftnn._src.nn.spectral_norm import SpectralNorm
from liftnn._src.nn.weight_norm import WeightNorm

__all__ = [
    "BatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "Module",
    "RMSNorm",
    "SpectralNorm",
    "WeightNorm",
    "first_from",
]
