"""A sequence of layers and functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.rngs import Rngs


class Sequential(Module):
    """Apply functions in sequence, each to the output of the previous one.

    A tuple is passed to the next function as positional arguments, a dict as keyword arguments, and any other output as
    a single argument. The functions are in the list `layers`, which may be changed.

    Args:
      *fns: Modules, functions or other callables.

    Raises:
      ArgumentError: If one of them is not callable.

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
        """Apply all functions.

        Args:
          *args: Positional arguments of the first function.
          rngs: Passed to each function with a parameter `rngs`, unless it is None, the default.
          **kwargs: Keyword arguments of the first function.

        Returns:
          The output of the last function. If `layers` is empty: the argument if there is one, else the tuple of
          positional arguments, else the dict of keyword arguments, else None.

        Raises:
          ArgumentError: If an entry of `layers` is not callable.
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
    """Convert the output of one function to the arguments of the next."""
    if isinstance(output, tuple):
        return output, {}
    if isinstance(output, dict):
        return (), output
    return (output,), {}


def _takes_rngs(function: Callable[..., Any]) -> bool:
    """Check whether the function has a parameter `rngs` that can be passed by keyword."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # some functions written in C have no signature
        return False
    return "rngs" in parameters and parameters["rngs"].kind in (
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )


def _check_callable(position: int, function: Any) -> None:
    """Raise ArgumentError if an entry of a Sequential is not callable."""
    if not callable(function):
        raise errors.ArgumentError(
            f"Entry {position} of a Sequential is not a function or module, but of type {type(function).__qualname__}.",
            "Pass the layers one by one, as in Sequential(layer, relu), or unpack a list with *.",
        )
