"""Pickling of functions that layers hold: closures made by a factory, and JAX's compiled functions.

Pickle writes a function as the name under which it can be imported. That fails for two kinds that nearly every layer
has as an attribute: what a factory returns (`jax.nn.initializers.variance_scaling(...)`), and functions that JAX has
wrapped (`jax.nn.relu`). The first kind is written as its factory and arguments, the second as its public name.
"""

from __future__ import annotations

import copyreg
import sys
import types
from typing import Any

import jax

from liftnn.graph.static import Static, static_key

_MODULES = (jax.nn, jax.numpy, jax.lax, jax.nn.initializers, jax.random, jax.scipy.special)


class Made:
    """A closure as the factory that made it and the factory's arguments; unpickles as the closure.

    Args:
      module: Name of the factory's module.
      name: Name of the factory.
      arguments: Its keyword arguments.
      function: The closure; deepcopy gives it back, since functions are not copied.
    """

    def __init__(self, module: str, name: str, arguments: dict[str, Any], function: Any):
        self.function = function
        self.module = module
        self.name = name
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return (call_factory, (self.module, self.name, self.arguments))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.function


def call_factory(module: str, name: str, arguments: dict[str, Any]) -> Any:
    """What a factory returns."""
    __import__(module)
    return getattr(sys.modules[module], name)(**arguments)


def portable(value: Any) -> Any:
    """What to write in place of an attribute's value.

    Args:
      value: The value.

    Returns:
      A `Made` for a closure whose free variables are arguments of the function that made it, and which that function
      makes again when called; the value itself otherwise.
    """
    if type(value) is not types.FunctionType or not value.__closure__:
        return value
    name, found, _ = value.__qualname__.partition(".<locals>.")
    factory = getattr(sys.modules.get(value.__module__), name, None) if found else None
    if factory is None:
        return value
    cells = [cell.cell_contents for cell in value.__closure__]
    arguments = dict(zip(value.__code__.co_freevars, cells, strict=True))
    made = Made(value.__module__, name, arguments, value)
    try:
        again = factory(**made.arguments)
        return made if static_key(again) == static_key(value) else value
    except Exception:  # not a factory of these arguments; pickle will say what it cannot write
        return value


def _reduce_wrapped(function: Any) -> Any:
    """Writes a function that JAX has wrapped by its public name."""
    name = getattr(function, "__name__", "")
    for module in _MODULES:
        if getattr(module, name, None) is function:
            return (_public, (module.__name__, name))
    return object.__reduce_ex__(function, 4)


def _public(module: str, name: str) -> Any:
    """A function by its public name."""
    __import__(module)
    return getattr(sys.modules[module], name)


def _reduce_static(static: Static) -> Any:
    """Writes the value without its key, which may hold code."""
    return (Static, (portable(static.value),))


copyreg.pickle(Static, _reduce_static)
for _wrapped in (type(jax.jit(lambda: None)), jax.custom_jvp, jax.custom_vjp):
    copyreg.pickle(_wrapped, _reduce_wrapped)
