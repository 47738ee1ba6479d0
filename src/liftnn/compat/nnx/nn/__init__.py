"""Layers by module: `linear`, `attention`, `normalization` ..., as `flax.nnx.nn`."""

from liftnn.compat.nnx.nn import (
    activations,
    attention,
    dtypes,
    initializers,
    linear,
    lora,
    normalization,
    recurrent,
    stochastic,
)

__all__ = [
    "activations",
    "attention",
    "dtypes",
    "initializers",
    "linear",
    "lora",
    "normalization",
    "recurrent",
    "stochastic",
]
