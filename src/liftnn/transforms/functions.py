"""The functions that a loop or branch is given: lifted along with its operands, and traced once each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from liftnn.graph.module import Module
from liftnn.lifting.lift import open_function
from liftnn.lifting.pure import PureCall


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

    def __call__(self, holder: Module, *args: Any) -> Any:
        """Calls the function that the holder, or a copy of it, has."""
        held = getattr(holder, self._name)
        return (held if self._position is None else held[self._position])(*args)

    def carried_functions(self) -> tuple[Any, ...]:
        """Where captured modules may be found; see `Lifted`."""
        return (self._function,)


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
    holder, held = Module(), []
    for name, given in functions.items():
        setattr(holder, name, given)
        several = list(enumerate(given)) if isinstance(given, list) else [(None, given)]
        held += [Held(name, position, open_function(f, transform)[0]) for position, f in several]
    return holder, held


def trace_once(pure: PureCall) -> Callable[..., Any]:
    """A pure call that JAX traces once for each type of its arguments, however often it is used.

    What a loop writes is found by tracing its body before the loop is made. Without this, each level of nested loops
    would double the traces of the innermost body.
    """
    return jax.jit(pure, inline=True)
