"""Modules, as `flax.nnx.module`."""

from liftnn._src.modules.module import M, Module

__all__ = [
    "M",
    "Module",
]
