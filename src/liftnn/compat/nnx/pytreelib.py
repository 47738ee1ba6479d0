"""Base classes and annotations of attributes, as `flax.nnx.pytreelib`."""

from liftnn._src.compat.annotations import (
    Data,
    Static,
    check_pytree,
    data,
    dataclass,
    has_data,
    is_data,
    register_data_type,
    static,
)
from liftnn._src.compat.modules import Module
from liftnn._src.modules import module as own
from liftnn._src.variables.variable import Variable

Pytree = Module
Object = own.Module

__all__ = [
    "Data",
    "Object",
    "Pytree",
    "Static",
    "Variable",
    "check_pytree",
    "data",
    "dataclass",
    "has_data",
    "is_data",
    "register_data_type",
    "static",
]
