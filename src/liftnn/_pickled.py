"""The names under which pickles and exported files refer to what is internal.

Pickle writes a class or function as the module and the name where it is found. What is public is found in `liftnn`.
What is not is found here, wherever it is defined, so that files can be read after it has moved. A name here never
changes and never goes; if something is renamed, it keeps its old name here as well.
"""

import importlib
from typing import Any

from liftnn._src.compilation.jit import jit_of_arrays
from liftnn._src.compilation.jitted import Jitted
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
from liftnn._src.graph.recipes import Recipe
from liftnn._src.graph.slots import ARRAY, ArrayEdge
from liftnn._src.modules.pickling import (
    Contents,
    PickleMark,
    Shell,
    keep_state,
    new_shell,
    nothing,
    third,
)
from liftnn._src.modules.portable import FactoryCall, call_factory, public_function
from liftnn._src.prefixes.prefix import ByFilter, OneOf
from liftnn._src.publish import publish as publish, set_module
from liftnn._src.static_values.static import Snapshot, Static
from liftnn._src.static_values.value_types import Identity
from liftnn._src.variables.metadata import Annotated, Metadata
from liftnn._src.variables.state_pytree import PathKey, StateKeys, keys_of
from liftnn._src.variables.variable import new_variable
from liftnn._src.variables.variable_types import Empty, EmptyType

__all__ = ["ARRAY", "KEEP", "Empty"]
"""Constants, which pickle looks for in the module of their class."""

_FOUND_HERE: tuple[Any, ...] = (
    Annotated, ArrayEdge, ByFilter, Contents, Definition, EmptyType, Everything,
    FactoryCall, GraphDelta, GraphSpec, Identity, Jitted, KeepEdge, LeafPaths,
    Metadata, NodeSpec, Nothing, OneOf, PathKey, PickleMark, Recipe, Shell, Snapshot, StateKeys, Static, TypeByName,
    call_factory, jit_of_arrays, keep_state, keys_of, kind_named, new_shell, new_variable, nothing, public_function,
    third, type_named,
)  # fmt: skip

for _x in _FOUND_HERE:
    set_module(_x, __name__)

_FOUND_AT_FIRST_USE = {
    "Carry": "liftnn._src.control_flow.loop_axes",
    "CarryType": "liftnn._src.control_flow.loop_axes",
    "ExportedContents": "liftnn._src.compilation.exported",
    "FixedDict": "liftnn._src.optim.fixed_entries",
    "FixedState": "liftnn._src.optim.fixed_entries",
    "FunctionName": "liftnn._src.compilation.by_name",
    "LinenModule": "liftnn._src.compat.linen.to_module",
    "ObjectByClass": "liftnn._src.compilation.by_name",
    "promote_dtype": "liftnn._src.nn.dtypes",
    "restore_layout": "liftnn._src.optim.layout",
    "restore_transformation": "liftnn._src.optim.transformations",
}
"""The modules of what `import liftnn` does not load; see `publish.py`."""


def __getattr__(name: str) -> Any:
    """Return what is loaded at first use."""
    if name not in _FOUND_AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FOUND_AT_FIRST_USE[name]), name)
