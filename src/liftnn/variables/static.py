"""Static values compared by content: the part of a cache key that is not an array.

`==` is not enough for a key: `1 == True == 1.0`, `0.0 == -0.0`, lists are unhashable, and a fresh `optax.adam(1e-3)`
is a new closure that does what the old one did. So a static value has a *key*, which is hashable and equal only if
the values are interchangeable. A wrong hit is worse than a retrace: whatever cannot be compared by content is
compared by identity.
"""

from __future__ import annotations

import copy
import enum
import functools
import types
from typing import Any

import jax
import numpy as np

from liftnn import errors

SIMPLE_TYPES: frozenset[type] = frozenset(
    [int, bool, str, bytes, type(None), type, type(...), type(NotImplemented)]
)
"""Types whose values are immutable and equal exactly if type and `==` agree."""

_JITTED = type(jax.jit(lambda: None))
_IMMUTABLE_BY_IDENTITY = (
    type, types.ModuleType, enum.Enum, np.dtype, _JITTED, jax.custom_jvp, jax.custom_vjp, np.ufunc,
    types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType, types.MethodDescriptorType,
)  # fmt: skip


class NotImmutableError(Exception):
    """Raised inside this file when a closure holds something that could change."""


class Static:
    """One static value with the key that it is compared by.

    Args:
      value: The value. Of an unhashable one a private copy is kept.
    """

    __slots__ = ("_value", "key")

    def __init__(self, value: Any):
        self.key = static_key(value)
        self._value = None if isinstance(self.key, Snapshot) else value

    @property
    def value(self) -> Any:
        """The value; a fresh copy if it is one that could be changed in place."""
        return copy.deepcopy(self.key.copy) if isinstance(self.key, Snapshot) else self._value

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Static) and self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return repr(self.key.copy if isinstance(self.key, Snapshot) else self._value)


class Snapshot:
    """A frozen copy of an unhashable static value, compared with `==`, a set by the keys of its elements.

    Args:
      value: The value to copy.

    Raises:
      StructureError: If the value cannot be copied, or if `==` does not answer a bool, True for the copy.
    """

    __slots__ = ("copy", "elements")

    def __init__(self, value: Any):
        self.elements = frozenset(map(static_key, value)) if type(value) is set else None
        try:
            self.copy = copy.deepcopy(value)
            same = value == self.copy
        except Exception as error:
            raise errors.StructureError(
                f"A static value of type {type(value).__qualname__} is neither hashable nor can it be copied and "
                f"compared ({type(error).__name__}).",
                "Make it hashable, or keep it outside the module.",
            ) from error
        if not isinstance(same, (bool, np.bool_)):
            raise errors.StructureError(
                f"A static value of type {type(value).__qualname__} is unhashable, and comparing it with == does not "
                "answer True or False.",
                "Make it hashable, or store the arrays in it as attributes or Variables.",
            )
        if not same:
            raise errors.StructureError(
                f"A static value of type {type(value).__qualname__} is unhashable, and a copy of it does not compare "
                "equal to it, so it would look changed at every call.",
                "Make it hashable, or give it an __eq__ that compares content; a module in it belongs into a list, a "
                "dict or an attribute.",
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot) or type(self.copy) is not type(other.copy):
            return False
        if self.elements is not None:
            return self.elements == other.elements
        return bool(self.copy == other.copy)

    def __hash__(self) -> int:
        return hash(type(self.copy))


class Identity:
    """Compares by identity a value whose content could change."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def static_key(value: Any) -> Any:
    """A hashable that is equal for interchangeable values only.

    Args:
      value: Any Python object that is no array, Variable, Module or container with one inside.

    Returns:
      The key.

    Raises:
      StructureError: If the value is unhashable and cannot be copied and compared.
    """
    kind = type(value)
    if kind in SIMPLE_TYPES:
        return (kind, value)
    if kind is types.FunctionType:
        return function_key(value)
    try:
        return immutable_key(value)
    except NotImmutableError:
        pass
    try:
        hash(value)
    except TypeError:
        return Snapshot(value)
    return (kind, value)


def function_key(function: types.FunctionType) -> Any:
    """A key that two functions share if they run the same code over the same immutable values."""
    try:
        return immutable_key(function)
    except NotImmutableError:
        return Identity(function)


def immutable_key(value: Any, above: tuple[int, ...] = ()) -> Any:
    """The key of a value that is immutable all the way down.

    Args:
      value: The value.
      above: Ids of the functions that are being compared further up.

    Returns:
      The key.

    Raises:
      NotImmutableError: If anything in it could change.
    """
    kind: Any = type(value)
    if kind in SIMPLE_TYPES:
        return (kind, value)
    if kind is float:
        return (kind, value.hex())
    if kind is complex:
        return (kind, value.real.hex(), value.imag.hex())
    if kind is types.FunctionType:
        return _function_key(value, above)
    if kind is frozenset:
        return (kind, frozenset([immutable_key(x, above) for x in value]))
    if kind is slice:
        return (kind, immutable_key((value.start, value.stop, value.step), above))
    if kind is functools.partial:
        parts = (value.func, value.args, tuple(value.keywords.items()))
        return (kind, immutable_key(parts, above))
    if isinstance(value, tuple) and not getattr(value, "__dict__", None):
        return (kind, tuple([immutable_key(x, above) for x in value]))
    if isinstance(value, _IMMUTABLE_BY_IDENTITY):
        return (kind, value)
    if isinstance(value, np.generic):
        return (kind, value.dtype, value.tobytes())
    raise NotImmutableError


def _function_key(function: types.FunctionType, above: tuple[int, ...]) -> Any:
    """The key of a function by code, globals, defaults, attributes and closure."""
    if id(function) in above:
        return (types.FunctionType, "recursion", above.index(id(function)))
    above = (*above, id(function))
    key = (types.FunctionType, function.__code__, id(function.__globals__))
    if not (function.__closure__ or function.__defaults__ or function.__kwdefaults__ or function.__dict__):
        return key
    try:
        cells = tuple([cell.cell_contents for cell in function.__closure__ or ()])
    except ValueError:  # a cell that is not filled yet
        raise NotImmutableError from None
    named = tuple({**(function.__kwdefaults__ or {}), **function.__dict__}.items())
    return (*key, immutable_key((function.__defaults__, named, cells), above))
