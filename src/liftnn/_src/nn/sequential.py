"""A sequence of layers and functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, overload

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs


class Sequential(Module):
    """Apply functions in sequence, each to the output of the previous one.

    A tuple is passed to the next function as positional arguments, a dict as keyword arguments, and any other output as
    a single argument. The functions are in the list `layers`, which may be changed. A Sequential is also a sequence of
    them: `len`, iteration, `model[0]`, and slices, which are new Sequentials of the same layers; entries and slices can
    be assigned and deleted.

    Args:
      *fns: Modules, functions or other callables.

    Raises:
      ArgumentError: If one of them is not callable, or is a class of modules.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> rngs = liftnn.Rngs(0)
      >>> model = liftnn.Sequential(liftnn.Linear(3, 8, rngs=rngs), liftnn.relu, liftnn.Linear(8, 2, rngs=rngs))
      >>> model(jnp.ones((1, 3))).shape
      (1, 2)
      >>> model[:2](jnp.ones((1, 3))).shape
      (1, 8)
    """

    def __init__(self, *fns: Callable[..., Any]):
        for position, function in enumerate(fns):
            _check_callable(position, function)
        self.layers = list(fns)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | slice) -> Any:
        return Sequential(*self.layers[index]) if isinstance(index, slice) else self.layers[index]

    def __setitem__(self, index: int | slice, fns: Any) -> None:
        layers = list(self.layers)
        layers[index] = fns
        for position, function in enumerate(layers):
            _check_callable(position, function)
        self.layers[index] = fns

    def __delitem__(self, index: int | slice) -> None:
        del self.layers[index]

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
    """Raise ArgumentError if an entry of a Sequential is not callable, or if it is a class of modules."""
    if isinstance(function, type) and issubclass(function, Module):
        name = function.__qualname__
        raise errors.ArgumentError(
            f"Entry {position} of a Sequential is the class {name}, not a layer.",
            f"Create the layer: `{name}(...)` in place of `{name}`.",
        )
    if not callable(function):
        raise errors.ArgumentError(
            f"Entry {position} of a Sequential is not a function or module, but of type {type(function).__qualname__}.",
            "Pass the layers one by one, as in Sequential(layer, relu), or unpack a list with *.",
        )


publish(Sequential)
