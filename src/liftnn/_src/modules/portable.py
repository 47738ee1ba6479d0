"""Pickling of the functions that layers hold: closures from a factory, and functions wrapped by JAX.

Pickle writes a function as its importable name. That fails for two kinds of functions that nearly every layer has as
an attribute: closures that a factory returns (`jax.nn.initializers.variance_scaling(...)`), and functions that JAX has
wrapped (`jax.nn.relu`). The first kind is written as its factory and arguments, the second as its public name. The
user's own functions that a decorator has transformed are written as their name in their module.
"""

from __future__ import annotations

import copyreg
import itertools
import operator
import sys
import types
from collections.abc import Callable
from typing import Any

import jax

from liftnn._src.static_values.static import Static, static_key

WRAPPED: tuple[type, ...] = (type(jax.jit(lambda: None)), jax.custom_jvp, jax.custom_vjp)
"""The classes of functions that JAX has wrapped."""
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


def _reduce_wrapped(function: Any) -> Any:
    """Reduce a function that JAX has wrapped to its public name."""
    name = getattr(function, "__name__", "")
    for module in _MODULES:
        if getattr(module, name, None) is function:
            return (public_function, (module.__name__, name))
    return importable_name(function) or object.__reduce_ex__(function, 4)


def importable_name(function: Any) -> str:
    """Return the name of a transformed function in its module, by which pickle can find it in another process.

    Args:
      function: The function.

    Returns:
      Its qualified name. An empty text if the module has another object there, and for the main script and the modules
      that cloudpickle is told to take along: the other process may not have them.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    by_value = getattr(sys.modules.get("cloudpickle"), "list_registry_pickle_by_value", set)()
    parents = itertools.accumulate((module or "").split("."), "{}.{}".format)
    if not module or not name or module == "__main__" or not by_value.isdisjoint(parents):
        return ""
    try:
        found = operator.attrgetter(name)(sys.modules.get(module))
    except AttributeError:
        return ""
    return name if found is function else ""


def public_function(module: str, name: str) -> Any:
    """Return a function by its public name, for unpickling."""
    __import__(module)
    return getattr(sys.modules[module], name)


def _reduce_static(static: Static) -> Any:
    """Reduce a static value to the value without its key, which may hold code."""
    return (Static, (portable(static.value),))


copyreg.pickle(Static, _reduce_static)
for _wrapped in WRAPPED:
    copyreg.pickle(_wrapped, _reduce_wrapped)
