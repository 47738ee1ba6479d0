"""The names under which pickles and exported files refer to what is internal.

Pickle writes a class or function as the module and the name where it is found. What is public is found in `liftnn`.
What is not is found here, wherever it is defined, so that files can be read after it has moved. A name here never
changes and never goes; if something is renamed, it keeps its old name here as well.
"""

import types
from typing import Any

from liftnn._src.compilation.exported import ExportedContents
from liftnn._src.compilation.jit import jit_of_arrays
from liftnn._src.compilation.jitted import Jitted
from liftnn._src.control_flow.loop_axes import Carry, CarryType
from liftnn._src.filters import Everything, Nothing
from liftnn._src.graph.closures import Definition
from liftnn._src.graph.description import (
    KEEP,
    GraphSpec,
    KeepEdge,
    LeafPaths,
    NodeSpec,
    TypeByName,
    type_named,
)
from liftnn._src.graph.kinds import kind_named
from liftnn._src.graph.merge import GraphDelta
from liftnn._src.graph.slots import ARRAY, ArrayEdge
from liftnn._src.modules.pickling import (
    Contents,
    PickleMark,
    Shell,
    new_shell,
    nothing,
    third,
)
from liftnn._src.modules.portable import FactoryCall, FunctionName, call_factory, public_function
from liftnn._src.nn.dtypes import promote_dtype
from liftnn._src.optim.fixed_entries import FixedDict, FixedState
from liftnn._src.optim.layout import restore_layout
from liftnn._src.optim.transformations import restore_transformation
from liftnn._src.prefixes.prefix import ByFilter, OneOf
from liftnn._src.static_values.static import Snapshot, Static
from liftnn._src.static_values.value_types import Identity
from liftnn._src.variables.metadata import Annotated, Metadata
from liftnn._src.variables.state_pytree import PathKey, StateKeys, keys_of
from liftnn._src.variables.variable import new_variable
from liftnn._src.variables.variable_types import Empty, EmptyType

__all__ = ["ARRAY", "KEEP", "Carry", "Empty"]
"""Constants, which pickle looks for in the module of their class."""

_FOUND_HERE: tuple[Any, ...] = (
    Annotated, ArrayEdge, ByFilter, CarryType, Contents, Definition, EmptyType, Everything, ExportedContents,
    FactoryCall, FixedDict, FixedState, FunctionName, GraphDelta, GraphSpec, Identity, Jitted, KeepEdge, LeafPaths,
    Metadata, NodeSpec, Nothing, OneOf, PathKey, PickleMark, Shell, Snapshot, StateKeys, Static, TypeByName,
    call_factory, jit_of_arrays, keys_of, kind_named, new_shell, new_variable, nothing, promote_dtype,
    public_function, restore_layout, restore_transformation, third, type_named,
)  # fmt: skip


def set_module(x: Any, module: str) -> None:
    """Sets where pickle looks for a class, with its methods, or for a function; nothing else, and nothing of others.

    Args:
      x: The class or function.
      module: The module, which has it under its qualified name.
    """
    name = getattr(x, "__qualname__", None)
    if name is None or not getattr(x, "__module__", "").startswith("liftnn."):
        return
    x.__module__ = module
    if not isinstance(x, type):
        return
    for method in vars(x).values():
        function = method if type(method) is types.FunctionType else getattr(method, "__func__", None)
        if type(function) is types.FunctionType and function.__qualname__.startswith(
            name
        ):  # not one of others
            function.__module__ = module


for _x in _FOUND_HERE:
    set_module(_x, __name__)
