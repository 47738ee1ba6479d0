"""Values on one line: arrays by dtype and shape, static values without memory addresses, metadata of Variables."""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from liftnn._src.trees import is_array, is_deleted, is_tracer
from liftnn._src.variables.variable import Variable

_LONGEST = 60
"""The maximum length of the text of a static value."""
_MOST_ELEMENTS = 8
"""The maximum number of elements of a container that are shown."""
_DEEPEST = 4
"""Containers nested deeper than this are shown as dots."""

_SHORT = (("bfloat", "bf"), ("float", "f"), ("uint", "u"), ("int", "i"), ("complex", "c"))


def array_text(x: Any) -> str:
    """Format an array as short dtype and shape, such as `f32[4,8]`.

    Args:
      x: An array, a tracer or a `jax.ShapeDtypeStruct`; it may be deleted.

    Returns:
      The text, without values.
    """
    dtype = getattr(x.dtype, "name", None) or str(x.dtype)
    name = next((new + dtype.removeprefix(old) for old, new in _SHORT if dtype.startswith(old)), dtype)
    return f"{name}[{','.join(map(str, x.shape))}]"


def value_text(x: Any, depth: int = 0) -> str:
    """Format any value on one line, with arrays by dtype and shape; it never raises.

    Args:
      x: The value.
      depth: The number of containers around it.

    Returns:
      The text, at most about 60 characters for a value that is not an array.
    """
    try:
        text = array_text(x) if is_array(x) else _static_text(x, depth)
    except Exception:  # a user's `__repr__`, or a property of a foreign array
        return f"<{type(x).__name__}>"
    return text if len(text) <= _LONGEST or depth or type(x) is str else f"{text[: _LONGEST - 3]}..."


def _static_text(x: Any, depth: int) -> str:
    cls = type(x)
    if isinstance(x, Variable):
        return f"{cls.__name__} {value_text(raw_value(x), depth + 1)}"
    if hasattr(cls, "__graph_node__"):
        return f"{cls.__name__}(...)"
    formatter = _FORMATTERS.get(cls)
    if formatter is not None:
        return formatter(x, depth)
    if isinstance(x, type):
        return x.__name__
    if isinstance(x, tuple) and hasattr(cls, "_fields"):
        return f"{cls.__name__}({_pairs(zip(cls._fields, x, strict=False), '=', depth)})"
    if callable(x) and "__repr__" not in vars(cls) and isinstance(getattr(x, "__name__", None), str):
        return x.__name__
    dtype: Any = x if isinstance(x, np.dtype) else getattr(x, "dtype", None)  # `jnp.float32` has a dtype
    if isinstance(dtype, np.dtype):
        return dtype.name
    return _own_text(x)


def _own_text(x: Any) -> str:
    """Return the repr of an object on one line, without memory addresses."""
    if type(x).__repr__ is object.__repr__:
        return f"<{type(x).__name__}>"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(repr(x).split()))


def _items(xs: Iterable[Any], depth: int) -> str:
    """Format the first elements of a container."""
    texts: list[str] = []
    for x in xs:
        if len(texts) == _MOST_ELEMENTS:
            return ", ".join([*texts, "..."])
        texts.append(value_text(x, depth + 1))
    return ", ".join(texts)


def _pairs(pairs: Iterable[tuple[Any, Any]], between: str, depth: int) -> str:
    """Format the first entries of a mapping."""
    texts: list[str] = []
    for key, x in pairs:
        if len(texts) == _MOST_ELEMENTS:
            return ", ".join([*texts, "..."])
        name = key if between == "=" else value_text(key, depth + 1)
        texts.append(f"{name}{between}{value_text(x, depth + 1)}")
    return ", ".join(texts)


def _within(opening: str, closing: str, inner: Callable[[Any, int], str]) -> Callable[[Any, int], str]:
    """Return the formatter of a container, which ends at a depth."""
    return lambda x, depth: f"{opening}{'...' if depth > _DEEPEST else inner(x, depth)}{closing}"


def _tuple_text(x: tuple[Any, ...], depth: int) -> str:
    return _items(x, depth) + ("," if len(x) == 1 else "")


def _str_text(x: str, depth: int) -> str:
    return repr(x if len(x) <= _LONGEST - 5 else f"{x[: _LONGEST - 5]}...")


def _function_text(x: Any, depth: int) -> str:
    return str(x.__name__)


def _partial_text(x: functools.partial[Any], depth: int) -> str:
    parts = [value_text(x.func, depth + 1), *([_items(x.args, depth)] if x.args else [])]
    return (
        f"partial({', '.join([*parts, *([_pairs(x.keywords.items(), '=', depth)] if x.keywords else [])])})"
    )


_FORMATTERS: dict[type, Callable[[Any, int], str]] = {
    str: _str_text,
    list: _within("[", "]", _items),
    tuple: _within("(", ")", _tuple_text),
    set: _within("{", "}", _items),
    frozenset: _within("frozenset({", "})", _items),
    dict: _within("{", "}", lambda x, depth: _pairs(x.items(), ": ", depth)),
    functools.partial: _within("", "", _partial_text),
    **dict.fromkeys(
        (types.FunctionType, types.BuiltinFunctionType, types.MethodType, np.ufunc), _function_text
    ),
    types.ModuleType: _function_text,
}


def raw_value(variable: Variable[Any]) -> Any:
    """Return the value of a Variable, without hooks, checks and effects on a running transform.

    Args:
      variable: The Variable, perhaps one of a transform that has returned, or one without a value.

    Returns:
      The value; None if it has none yet.
    """
    try:
        return variable._value
    except AttributeError:
        return None


def metadata_of(variable: Variable[Any]) -> Mapping[str, Any]:
    """Return the metadata that were set on a Variable; none for one that is not complete."""
    try:
        return variable._metadata.entries
    except AttributeError:
        return {}


def variable_text(variable: Variable[Any], common: str = "") -> str:
    """Format a Variable as type, dtype and shape, state and metadata, such as `Param f32[4,8] tag='lora'`.

    Args:
      variable: The Variable.
      common: A state that is not repeated, since all arrays have it. The default, an empty text, is none.

    Returns:
      The text, on one line. `deleted` marks an array that was donated, `traced` a tracer, `abstract` one with a shape
      only.
    """
    value = raw_value(variable)
    words = [
        type(variable).__name__,
        value_text(value),
        *sorted({*map(_status, leaves_of(value))} - {"", common}),
    ]
    sharding = sharding_text(value)
    words += [f"{name}={value_text(x)}" for name, x in metadata_of(variable).items()]
    return " ".join([*words, *([f"on {sharding}"] if sharding else [])])


def leaves_of(value: Any) -> list[Any]:
    """Return the arrays of the value of a Variable; none if it cannot be flattened."""
    if is_array(value):
        return [value]
    try:
        return [x for x in jax.tree.leaves(value) if is_array(x)]
    except Exception:  # the class of a pytree, or a module
        return []


def _status(x: Any) -> str:
    """Return a word for an array without a value that can be read; nothing for others."""
    if isinstance(x, jax.ShapeDtypeStruct):
        return "abstract"
    if is_tracer(x):
        return "traced"
    return "deleted" if is_deleted(x) else ""


def common_status(variables: Iterable[Variable[Any]]) -> str:
    """Return the state of all arrays of Variables, such as `traced`; nothing if they differ or have values."""
    found = {_status(x) for variable in variables for x in leaves_of(raw_value(variable))}
    return found.pop() if len(found) == 1 else ""


def sharding_text(value: Any) -> str:
    """Format how an array is divided over devices, such as `P('data', None)`; nothing for an array on one device."""
    try:
        sharding: Any = getattr(value, "sharding", None)
        if not isinstance(sharding, jax.sharding.NamedSharding) or sharding.mesh.size == 1:
            return ""
        return f"{sharding.mesh.size} devices, P{value_text(tuple(sharding.spec))}"
    except Exception:  # a tracer has no sharding yet
        return ""
