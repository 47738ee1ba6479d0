"""A sequence of layers and functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast, overload

from liftnn import errors
from liftnn._src.annotations import signature_of
from liftnn._src.modules.module import Module
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs


class Sequential(Module):
    """Apply functions in sequence, each to the output of the previous one.

    A tuple is passed to the next function as positional arguments, a dict as keyword arguments, and any other output as
    a single argument. Keyword arguments of the call, such as a mask, are passed to all functions that have a parameter
    of that name. The functions are in the list `layers`, which may be changed. A Sequential is also a sequence of
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
          rngs: Passed as `kwargs` are, unless it is None, the default; may be an argument that no function has.
          **kwargs: Passed to each function with a parameter of that name, or with `**kwargs`, unless a positional
            argument is its value. The first function also gets those that no function has.

        Returns:
          The output of the last function. If `layers` is empty: the argument if there is one, else the tuple of
          positional arguments, else the dict of keyword arguments, else None.

        Raises:
          ArgumentError: If an entry of `layers` is not callable.
          ArgumentTypeError: If a function gets an argument twice: from a dict, and from the call.
        """
        if not self.layers:
            return args[0] if len(args) == 1 else args or kwargs or None
        keywords = kwargs if rngs is None else {**kwargs, "rngs": rngs}
        output: Any = None
        for position, function in enumerate(self.layers):
            _check_callable(position, function)
            received: dict[str, Any] = {}
            if position:
                args, received = _as_arguments(output)
            taken = _accepted(function, len(args), keywords) if keywords else {}
            if kwargs and not position:
                taken |= self._without_taker({k: v for k, v in kwargs.items() if k not in taken})
            twice = sorted(received.keys() & taken.keys())
            if twice:
                raise errors.ArgumentTypeError(
                    f"Got multiple values for arguments {twice} in Sequential[{position}]: both the output of the "
                    "previous function and the call have them.",
                    "Pass one of the two under another name.",
                )
            output = function(*args, **received, **taken)
        return output

    def _without_taker(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments that no function after the first accepts: the first one gets them, and raises."""
        rest = self.layers[1:]
        return {k: v for k, v in kwargs.items() if not any(_accepted(f, 0, {k: v}) for f in rest)}


def _as_arguments(output: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Convert the output of one function to the arguments of the next."""
    if isinstance(output, tuple):
        return output, {}
    if isinstance(output, dict):
        return (), output
    return (output,), {}


def _accepted(function: Callable[..., Any], positional: int, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments that a function accepts beside a number of positional arguments."""
    if getattr(type(function), "__call__", None) is Sequential.__call__:  # noqa: B004
        layers = cast(Sequential, function).layers
        return {k: v for k, v in kwargs.items() if any(_accepted(f, 0, {k: v}) for f in layers)}
    try:
        parameters = list(signature_of(function).parameters.values())
    except (TypeError, ValueError):  # some functions written in C have no signature
        return {}
    by_position = {p.name for p in parameters[:positional] if p.kind is p.POSITIONAL_OR_KEYWORD}
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    others = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return {k: v for k, v in kwargs.items() if k not in by_position and (others or k in named)}


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
