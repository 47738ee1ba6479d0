"""Variables, as `flax.nnx.variablelib`."""

from liftnn._src.compat.modes import VarDefaults, VarDefaultsContext, var_defaults
from liftnn._src.compat.variable_metadata import VariableMetadata
from liftnn._src.compat.variable_names import (
    register_variable_name,
    variable_name_from_type,
    variable_type_from_name,
)
from liftnn._src.variables.annotated import with_metadata
from liftnn._src.variables.eager_sharding import use_eager_sharding, using_eager_sharding
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import BatchStat, Cache, Intermediate, Param, Perturbation

VariableState = Variable

__all__ = [
    "BatchStat",
    "Cache",
    "Intermediate",
    "Param",
    "Perturbation",
    "VarDefaults",
    "VarDefaultsContext",
    "Variable",
    "VariableMetadata",
    "VariableState",
    "register_variable_name",
    "use_eager_sharding",
    "using_eager_sharding",
    "var_defaults",
    "variable_name_from_type",
    "variable_type_from_name",
    "with_metadata",
]
