"""The functions that a loop or branch is given: lifted along with its operands, and traced once each."""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable
from typing import Any

import jax

from liftnn._src.lifting.callables import unwrap_callable
from liftnn._src.lifting.contract import Plan, PureFunction
from liftnn._src.modules.module import Module
from liftnn._src.static_values.static import function_key


class Held:
    """Calls a function that is held by a module.

    Args:
      name: The attribute that holds it.
      position: Its position if that is a list, else None.
      function: The function, for what it captures.
    """

    def __init__(self, name: str, position: int | None, function: Callable[..., Any]):
        self._name = name
        self._position = position
        self._function = function
        self.__wrapped__ = function

    def __call__(self, holder: Module, *args: Any) -> Any:
        """Calls the function that the holder, or a copy of it, has."""
        held = getattr(holder, self._name)
        return (held if self._position is None else held[self._position])(*args)

    def _carried_functions(self) -> tuple[Any, ...]:
        """Where captured modules may be found; see `Lifted`."""
        return (self._function,)


class Closure:
    """A function whose closure is no argument: what it captures is found as in the function of any transform.

    Args:
      function: The function.
    """

    __slots__ = ("function", "key")

    def __init__(self, function: types.FunctionType):
        self.function = function
        self.key = function_key(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function."""
        return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Closure) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def _as_static(function: Any) -> Any:
    """A function that the walk does not go into; what a partial stores, and bound methods, still take part."""
    if type(function) is types.FunctionType:
        return Closure(function)
    if type(function) is functools.partial:
        return functools.partial(_as_static(function.func), *function.args, **function.keywords)
    return function


def hold_functions(transform: str, **functions: Any) -> tuple[Module, list[Held]]:
    """Makes functions an argument: so modules whose methods they are, or that they are themselves, take part in a call.

    Args:
      transform: What messages call the transform.
      **functions: A function, or a list of them, under each name.

    Returns:
      A module with the functions as attributes; and, for each function, one of that module and its own arguments.

    Raises:
      ArgumentTypeError: If one of them is not callable.
    """
    holder = Module()
    held: list[Held] = []
    for name, given in functions.items():
        setattr(
            holder, name, [_as_static(f) for f in given] if isinstance(given, list) else _as_static(given)
        )
        several = list(enumerate(given)) if isinstance(given, list) else [(None, given)]
        held += [Held(name, position, unwrap_callable(f, transform)[0]) for position, f in several]
    return holder, held


class TracedOnce:
    """A pure function that JAX traces once for each type of its arguments, however often it is used.

    What a loop writes is found by tracing its body before the loop is made. Without this, each level of nested loops
    would double the traces of the innermost body. Where an error of JAX's names a flat argument, it says the
    attribute path.

    Args:
      plan: The arguments.
      pure: The pure function.
      function: The user's function, which JAX's messages shall name.
    """

    def __init__(self, plan: Plan, pure: PureFunction, function: Any):
        def step(liftnn_step_leaves: Any) -> Any:
            return pure(liftnn_step_leaves)

        signature = inspect.signature(step)
        functools.update_wrapper(step, getattr(function, "__wrapped__", function), updated=())
        step.__signature__ = signature
        self._plan = plan
        self._traced = jax.jit(step, inline=True)

    def __call__(self, leaves: Any) -> Any:
        """The result."""
        return self._named(self._traced, leaves)

    def eval_shape(self, leaves: Any) -> Any:
        """The abstract result."""
        return self._named(self._traced.eval_shape, leaves)

    def _named(self, call: Callable[..., Any], leaves: Any) -> Any:
        try:
            return call(leaves)
        except Exception as error:
            error.args = tuple([_SLOT.sub(self._name, x) if isinstance(x, str) else x for x in error.args])
            raise

    def _name(self, found: re.Match[str]) -> str:
        return self._plan.name(self._plan.slots[int(found[1])])


_SLOT = re.compile(r"\bliftnn_step_leaves\[(\d+)\]")
"""JAX's name for a flat argument; no text of a user's has it in it."""
