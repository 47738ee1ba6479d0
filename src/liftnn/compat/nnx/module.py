"""Modules, as `flax.nnx.module`."""

from liftnn._src.compat.copies import view, view_info, with_attributes
from liftnn._src.compat.iterate import iter_children, iter_module_children, iter_modules
from liftnn._src.intermediates import capture
from liftnn._src.modules.module import M, Module

__all__ = [
    "M",
    "Module",
    "capture",
    "iter_children",
    "iter_module_children",
    "iter_modules",
    "view",
    "view_info",
    "with_attributes",
]
