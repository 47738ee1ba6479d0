"""Names of collections of Variables, such as `params`, as Flax has them, and the types that they stand for."""

from __future__ import annotations

from typing import Any

from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import BatchStat, Cache, Intermediate, Param, Perturbation

VariableType = type[Variable[Any]]

TYPES: dict[str, VariableType] = {
    "params": Param,
    "batch_stats": BatchStat,
    "cache": Cache,
    "intermediates": Intermediate,
    "perturbations": Perturbation,
}
"""The types by name; `register_variable_name` adds others."""


def as_type(named: VariableType | str, base: VariableType = Variable) -> VariableType:
    """Return a type of Variables, given as a class or by name.

    Args:
      named: The type, or a name of `TYPES`. An unknown name gets a new type.
      base: The base class of a new type.

    Returns:
      The type.
    """
    if not isinstance(named, str):
        return named
    if named not in TYPES:
        TYPES[named] = type(named, (base,), {"__module__": "__main__"})  # the user's
    return TYPES[named]
