"""Modules, as `flax.nnx.module`."""

from liftnn._src.compat.copies import view, view_info, with_attributes
from liftnn._src.compat.defaults import first_from
from liftnn._src.compat.iterate import iter_children, iter_module_children, iter_modules
from liftnn._src.compat.modules import Module
from liftnn._src.compat.states import split_state
from liftnn._src.intermediates import capture
from liftnn._src.modules.module import M
from liftnn._src.trees import Key, Path
from liftnn._src.variables.state import State

PathParts = Path
Pytree = Module

__all__ = [
    "Key",
    "M",
    "Module",
    "PathParts",
    "Pytree",
    "State",
    "capture",
    "first_from",
    "iter_children",
    "iter_module_children",
    "iter_modules",
    "split_state",
    "view",
    "view_info",
    "with_attributes",
]
