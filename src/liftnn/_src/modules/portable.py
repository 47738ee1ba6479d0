"""Pickling of the functions that layers hold: closures from a factory, and functions wrapped by JAX.

Pickle writes a function as its importable name. That fails for two kinds of functions that nearly every layer has as
an attribute: closures that a factory returns (`jax.nn.initializers.variance_scaling(...)`), and functions that JAX has
wrapped (`jax.nn.relu`). The first kind is written as its factory and arguments, the second as its public name.
"""

from __future__ import annotations

import copyreg
import functools
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from liftnn._src.graph.closures import Definition
from liftnn._src.graph.description import GraphSpec
from liftnn._src.graph.recipes import Recipe
from liftnn._src.static_values.static import Static, static_key

_WRAPPED: tuple[type, ...] = (type(jax.jit(lambda: None)), jax.custom_jvp, jax.custom_vjp)
_MODULES = (jax.nn, jax.numpy, jax.lax, jax.nn.initializers, jax.random, jax.scipy.special)


class FactoryCall:
    """A closure, as its factory and the factory's arguments; unpickles as the closure.

    Args:
      module: Name of the factory's module.
      name: Name of the factory.
      arguments: Keyword arguments of the factory.
      function: The closure; `deepcopy` returns it unchanged, since functions are not copied.
    """

    def __init__(self, module: str, name: str, arguments: dict[str, Any], function: Any):
        self.function = function
        self.module = module
        self.name = name
        self.arguments = arguments

    def __reduce__(self) -> Any:
        arguments = {name: portable(x) for name, x in self.arguments.items()}
        return (call_factory, (self.module, self.name, arguments))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.function


def call_factory(module: str, name: str, arguments: dict[str, Any]) -> Any:
    """Call a factory by name, for unpickling."""
    __import__(module)
    return getattr(sys.modules[module], name)(**arguments)


_portable: dict[type, Callable[[Any], Any]] = {}
"""By class, what returns the picklable replacement of a value."""


def register_portable(cls: type, replace: Callable[[Any], Any]) -> None:
    """Set how attribute values of a class and its subclasses are pickled.

    Args:
      cls: The class.
      replace: Returns the replacement of a value, which unpickles as an equal value.
    """
    _portable[cls] = replace


def portable(value: Any) -> Any:
    """Return the picklable replacement of an attribute value.

    Args:
      value: The value.

    Returns:
      A `FactoryCall` for a closure that a factory recreates: its free variables are arguments of the factory, and a
      call with them returns an equal closure. What is registered for its class. The value itself otherwise.
    """
    for base in type(value).__mro__:
        if base in _portable:
            return _portable[base](value)
    if type(value) is not types.FunctionType or not value.__closure__:
        return value
    name, found, _ = value.__qualname__.partition(".<locals>.")
    factory = getattr(sys.modules.get(value.__module__), name, None) if found else None
    if factory is None:
        return value
    cells = [cell.cell_contents for cell in value.__closure__]
    arguments = dict(zip(value.__code__.co_freevars, cells, strict=True))
    call = FactoryCall(factory.__module__, name, arguments, value)
    try:
        again = factory(**call.arguments)
        return call if static_key(again) == static_key(value) else value
    except Exception:  # not a factory of these arguments; pickle will raise its own error
        return value


class FunctionName(NamedTuple):
    """The name of a function with its defaults and closure contents; comparable across processes.

    Args:
      module: Name of its module.
      name: Its qualified name.
      bound: Its defaults and the contents of its closure.
    """

    module: str
    name: str
    bound: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"<function {self.name}>"


def by_name(description: GraphSpec) -> GraphSpec:
    """Replace the functions of a description by their names, to write it and to compare it in another process.

    Args:
      description: The description.

    Returns:
      The description with a `FunctionName` for every function among its static values.
    """

    def edge_by_name(edge: Any) -> Any:
        return Static(_by_name(edge.value)) if isinstance(edge, Static) else edge

    def extra_by_name(extra: Any) -> Any:
        if type(extra) is Definition:
            return FunctionName(extra.module, extra.name, extra.sizes)
        if type(extra) is Recipe:
            transform, *options = extra.parts
            name = FunctionName(transform.__module__, transform.__qualname__, ())
            return Static((name, *map(_by_name, options)))
        return extra

    specs = [
        s._replace(extra=extra_by_name(s.extra), edges=tuple(map(edge_by_name, s.edges)))
        for s in description.specs
    ]
    edges = tuple(map(edge_by_name, description.edges))
    return type(description)(description.treedef, edges, tuple(specs), description.frozen, description.paths)


def _by_name(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Return a static value with a `FunctionName` for each function."""
    if id(value) in above:
        return ("above", above.index(id(value)))
    above = (*above, id(value))
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, *_WRAPPED, np.ufunc)):
        bound: list[Any] = []
        if isinstance(value, types.FunctionType):
            cells = [c.cell_contents for c in value.__closure__ or ()]
            bound = [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        name = getattr(value, "__qualname__", value.__name__)
        package = (value.__module__ or "").partition("._src.")[0]  # private modules may move between versions
        return FunctionName(package, name, tuple([_by_name(_as_float(x), above) for x in bound]))
    if isinstance(value, functools.partial):
        parts = (value.func, *value.args, *value.keywords.items())
        return FunctionName("functools", "partial", tuple([_by_name(x, above) for x in parts]))
    if isinstance(value, tuple):
        return tuple.__new__(type(value), [_by_name(x, above) for x in value])
    if isinstance(value, (jax.Array, np.ndarray)):
        return ("array", str(value.dtype), value.shape, np.asarray(value).tobytes())
    return value


def _as_float(x: Any) -> Any:
    """Return an int that a function holds as a float: optax schedules convert their ints when they first run."""
    return float(x) if type(x) is int and abs(x) < 2**53 else x


def _reduce_wrapped(function: Any) -> Any:
    """Reduce a function that JAX has wrapped to its public name."""
    name = getattr(function, "__name__", "")
    for module in _MODULES:
        if getattr(module, name, None) is function:
            return (public_function, (module.__name__, name))
    return object.__reduce_ex__(function, 4)


def public_function(module: str, name: str) -> Any:
    """Return a function by its public name, for unpickling."""
    __import__(module)
    return getattr(sys.modules[module], name)


def _reduce_static(static: Static) -> Any:
    """Reduce a static value to the value without its key, which may hold code."""
    return (Static, (portable(static.value),))


copyreg.pickle(Static, _reduce_static)
for _wrapped in _WRAPPED:
    copyreg.pickle(_wrapped, _reduce_wrapped)
