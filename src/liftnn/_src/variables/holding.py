"""What holds what: a search of functions for Modules, Variables and arrays, and a check of what a Variable may hold."""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.static_values.value_types import SIMPLE_TYPES, is_frozen_dataclass, is_users_function
from liftnn._src.trees import an, is_array, is_registered


def holds_objects(f: types.FunctionType) -> bool:
    """Return whether a function is a node: a user's function that holds a Module, a Variable, an array or a pytree.

    Args:
      f: The function.

    Returns:
      True if it does, directly or through containers, dataclasses, partials, bound methods, weak references, other
      functions of the user, and transformed functions.
    """
    return _may_hold(f) and leads_to(f, _is_dynamic)


def held_containers(holder: types.FunctionType | weakref.ref[Any]) -> list[Any]:
    """Return what a function or weak reference holds that can change: lists, dicts, sets, dataclasses and the like.

    Args:
      holder: The function or weak reference.

    Returns:
      The containers; empty for the function of a library.
    """
    found: list[Any] = []

    def note(x: Any) -> bool:
        if is_container(x) or _is_pytree(x):
            found.append(x)
        return False

    if isinstance(holder, weakref.ref) or _may_hold(holder):
        leads_to(holder, note)
    return found


def _may_hold(f: types.FunctionType) -> bool:
    if f.__closure__ is None and f.__defaults__ is None and f.__kwdefaults__ is None and not f.__dict__:
        return False
    return is_users_function(f)


def _is_dynamic(x: Any) -> bool:
    return hasattr(type(x), "__graph_node__") or is_array(x) or _is_pytree(x)


def _is_pytree(x: Any) -> bool:
    """Return whether a value is a registered pytree other than a built-in container or a named tuple."""
    return type(x) not in _PARTS and not isinstance(x, (*_CONTAINERS, tuple)) and is_registered(x)


_CONTAINERS = (list, dict, set, collections.deque, types.SimpleNamespace)


def is_container(x: Any) -> bool:
    """Return whether a value is a list, dict, set, deque, SimpleNamespace or dataclass that can change."""
    if isinstance(x, _CONTAINERS):
        return True
    return dataclasses.is_dataclass(type(x)) and not is_frozen_dataclass(type(x))


def leads_to(x: Any, wanted: Callable[[Any], bool]) -> bool:
    """Return whether a function or cell holds an object that matches; runs no user code.

    Args:
      x: The function or cell.
      wanted: The predicate.

    Returns:
      True if any object that it reaches matches.
    """
    stack, seen = [x], {id(x)}
    while stack:
        x = stack.pop()
        for child in parts_of(x):
            if type(child) in _ATOMS or id(child) in seen:
                continue
            if wanted(child):
                return True
            seen.add(id(child))
            stack.append(child)
    return False


def parts_of(x: Any) -> Iterable[Any]:
    """Return what a function, cell, method, partial, weak reference, container or dataclass holds; runs no user code.

    Args:
      x: The object.

    Returns:
      The parts; empty for an object of another class, and for the function of a library.
    """
    return _parts_of(type(x))(x)


def find_cells(functions: Iterable[Any]) -> set[int]:
    """Return the ids of the cells that the user's functions reach, through each other and through containers.

    Args:
      functions: The functions, including transformed ones.

    Returns:
      The ids.
    """
    cells: set[int] = set()

    def note(x: Any) -> bool:
        if type(x) is types.CellType:
            cells.add(id(x))
        return False

    for f in functions:
        carried = getattr(type(f), "__carried_functions__", None)
        cells |= find_cells(carried(f)) if carried is not None else set()
        leads_to(f, note)
    return cells


_ATOMS = frozenset([*SIMPLE_TYPES, float, complex, types.ModuleType])


def _parts_of_function(f: types.FunctionType) -> Sequence[Any]:
    if not is_users_function(f):
        return ()
    return (
        *(f.__closure__ or ()),
        *(f.__defaults__ or ()),
        *(f.__kwdefaults__ or {}).values(),
        *f.__dict__.values(),
    )


def _parts_of_cell(x: types.CellType) -> Sequence[Any]:
    try:
        return (x.cell_contents,)
    except ValueError:  # not filled yet
        return ()


def _parts_of_method(x: types.MethodType | types.BuiltinMethodType) -> Sequence[Any]:
    return () if isinstance(x.__self__, types.ModuleType) else (x.__self__,)


def _parts_of_reference(x: weakref.ref[Any]) -> Sequence[Any]:
    return (x(),) if x.__callback__ is None else ()


def parts_of_transformed(x: Any) -> Sequence[Any]:
    """Return the functions that were transformed.

    Args:
      x: The transformed function.

    Returns:
      The functions; none if it is unknown how to transform others in the same way.
    """
    return () if x.__recipe__ is None else (x.__wrapped__, *x._others)


def parts_of_dataclass(x: Any) -> Sequence[Any]:
    """Return the values of the fields that are set, past all hooks.

    Args:
      x: The dataclass instance.

    Returns:
      The values.
    """
    found: list[Any] = []
    for field in dataclasses.fields(x):
        try:
            found.append(object.__getattribute__(x, field.name))
        except AttributeError:
            continue
    return found


_PARTS: dict[type, Callable[[Any], Iterable[Any]]] = {
    types.FunctionType: _parts_of_function,
    types.CellType: _parts_of_cell,
    types.MethodType: _parts_of_method,
    types.BuiltinFunctionType: _parts_of_method,
    functools.partial: lambda x: (x.func, *x.args, *x.keywords.values(), *vars(x).values()),
    weakref.ref: _parts_of_reference,
    types.SimpleNamespace: lambda x: tuple(vars(x).values()),
    list: lambda x: tuple(list.__iter__(x)),
    tuple: lambda x: tuple(tuple.__iter__(x)),
    collections.deque: lambda x: tuple(collections.deque.__iter__(x)),
    collections.OrderedDict: lambda x: tuple(collections.OrderedDict.values(x)),
    dict: lambda x: tuple(dict.values(x)),
}


@functools.lru_cache(maxsize=4096)
def _parts_of(cls: type) -> Callable[[Any], Iterable[Any]]:
    """Return a function that lists the parts of an instance to search."""
    for base in cls.__mro__:
        if base in _PARTS:
            return _PARTS[base]
    if hasattr(cls, "__recipe__"):
        return parts_of_transformed
    return parts_of_dataclass if dataclasses.is_dataclass(cls) else lambda x: ()


def checked_value(value: Any) -> Any:
    """Return a value if a Variable can hold it.

    Args:
      value: The value.

    Returns:
      The value.

    Raises:
      ArgumentError: If it is a Module or Variable.
    """
    if not isinstance(value, jax.Array) and hasattr(type(value), "__graph_node__"):
        raise errors.ArgumentError(
            f"A Variable holds arrays, not {an(type(value))}.",
            "Assign it to an attribute of a Module instead.",
        )
    return value
