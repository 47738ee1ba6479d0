"""Transforms by module: `autodiff`, `compilation`, `iteration`, `transforms`, as `flax.nnx.transforms`."""

from liftnn.compat.nnx.transforms import autodiff, compilation, iteration, transforms

__all__ = ["autodiff", "compilation", "iteration", "transforms"]
