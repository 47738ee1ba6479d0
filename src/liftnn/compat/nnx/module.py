"""Modules, as `flax.nnx.module`."""

from liftnn._src.compat.iterate import iter_children, iter_module_children, iter_modules
from liftnn._src.intermediates import capture
from liftnn._src.modules.copies import view, with_attributes
from liftnn._src.modules.module import M, Module

__all__ = [
    "M",
    "Module",
    "capture",
    "iter_children",
    "iter_module_children",
    "iter_modules",
    "view",
    "with_attributes",
]
