"""Names of collections, such as `params`, and the types of Variables that they stand for."""

from __future__ import annotations

import functools
from collections.abc import Callable

from liftnn import errors
from liftnn._src.variables.collection_names import TYPES, VariableType, as_type
from liftnn._src.variables.variable import Variable


def register_variable_name(
    name: str, typ: VariableType | None = None, *, overwrite: bool = False
) -> VariableType | Callable[[VariableType], VariableType]:
    """Register the type of Variables that a name stands for.

    Args:
      name: The name of the collection.
      typ: The type. Without it, the result is a decorator of the class.
      overwrite: Whether the name may stand for another type already. The default is False.

    Returns:
      The type, or the decorator.

    Raises:
      ArgumentError: If the name is taken.

    Example:
      >>> from liftnn.compat import nnx
      >>> @nnx.register_variable_name("noise")
      ... class Noise(nnx.Variable): pass
      >>> nnx.variable_type_from_name("noise").__name__
      'Noise'
    """
    if typ is None:
        return functools.partial(_register, name, overwrite)
    return _register(name, overwrite, typ)


def _register(name: str, overwrite: bool, typ: VariableType) -> VariableType:
    if name in TYPES and not overwrite:
        raise errors.ArgumentError(
            f"The name {name!r} stands for {TYPES[name].__name__} already.",
            "Choose another name, or pass overwrite=True.",
        )
    TYPES[name] = typ
    return typ


def variable_type_from_name(
    name: str, /, *, base: VariableType = Variable, allow_register: bool = False
) -> VariableType:
    """Return the type of Variables that a name stands for.

    Args:
      name: The name of the collection.
      base: The base class of a new type. The default is `Variable`.
      allow_register: Whether an unknown name gets a new type. The default is False.

    Returns:
      The type.

    Raises:
      ArgumentError: If the name is unknown and `allow_register` is False.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.variable_type_from_name("params") is nnx.Param
      True
    """
    if name not in TYPES and not allow_register:
        raise errors.ArgumentError(
            f"No type of Variables is registered for the name {name!r}.",
            "Call nnx.register_variable_name, or pass allow_register=True.",
        )
    return as_type(name, base)


def variable_name_from_type(typ: VariableType, /, *, allow_register: bool = False) -> str:
    """Return the name that stands for a type of Variables; the inverse of `variable_type_from_name`.

    Args:
      typ: The type.
      allow_register: Whether an unknown type is registered under the name of its class. The default is False.

    Returns:
      The name.

    Raises:
      ArgumentError: If the type is unknown and `allow_register` is False, or if its name is taken.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.variable_name_from_type(nnx.BatchStat)
      'batch_stats'
    """
    for name, known in TYPES.items():
        if known is typ:
            return name
    if not allow_register:
        raise errors.ArgumentError(
            f"No name is registered for the type {typ.__name__}.",
            "Call nnx.register_variable_name, or pass allow_register=True.",
        )
    _register(typ.__name__, False, typ)
    return typ.__name__
