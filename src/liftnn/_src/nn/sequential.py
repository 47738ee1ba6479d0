"""Layers and functions applied one after the other."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.rngs import Rngs


class Sequential(Module):
    """Applies functions one after the other, each to the result of the one before.

    A tuple is passed on as positional arguments, a dict as keyword arguments, anything else as the only argument.
    The functions are in the list `layers`, which can be changed like any other.

    Args:
      *fns: Modules, functions or other callables.

    Raises:
      ArgumentError: If one of them cannot be called.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> rngs = liftnn.Rngs(0)
      >>> model = liftnn.Sequential(liftnn.Linear(3, 8, rngs=rngs), liftnn.relu, liftnn.Linear(8, 2, rngs=rngs))
      >>> model(jnp.ones((1, 3))).shape
      (1, 2)
    """

    def __init__(self, *fns: Callable[..., Any]):
        for position, function in enumerate(fns):
            _check_callable(position, function)
        self.layers = list(fns)

    def __call__(self, *args: Any, rngs: Rngs | None = None, **kwargs: Any) -> Any:
        """Applies all functions.

        Args:
          *args: Positional arguments of the first function.
          rngs: Passed to each function that has a parameter of this name. The default, None, is not passed.
          **kwargs: Keyword arguments of the first function.

        Returns:
          The result of the last function. Without any function: the only argument, else the positional arguments,
          else the keyword arguments, else None.

        Raises:
          ArgumentError: If something in `layers` cannot be called.
        """
        if not self.layers:
            return args[0] if len(args) == 1 else args or kwargs or None
        output: Any = None
        for position, function in enumerate(self.layers):
            _check_callable(position, function)
            if position:
                args, kwargs = _as_arguments(output)
            if rngs is not None and _takes_rngs(function):
                kwargs = {**kwargs, "rngs": rngs}
            output = function(*args, **kwargs)
        return output


def _as_arguments(output: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that the result of one function is for the next."""
    if isinstance(output, tuple):
        return output, {}
    if isinstance(output, dict):
        return (), output
    return (output,), {}


def _takes_rngs(function: Callable[..., Any]) -> bool:
    """Whether the function has a parameter called rngs that can be given by name."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # some functions written in C do not tell
        return False
    return "rngs" in parameters and parameters["rngs"].kind in (
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )


def _check_callable(position: int, function: Any) -> None:
    """Raises if something in a Sequential cannot be called."""
    if not callable(function):
        raise errors.ArgumentError(
            f"Entry {position} of a Sequential is not a function or module, but of type {type(function).__qualname__}.",
            "Give the layers one by one, as in Sequential(layer, relu), or unpack a list with *.",
        )
