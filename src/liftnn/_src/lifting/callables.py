"""What a callable carries with it, and what a transformed function takes over from it."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, Self, overload

import jax
import numpy as np

from liftnn import errors
from liftnn._src.graph.kinds import is_object
from liftnn._src.modules.module import Module
from liftnn._src.trees import an
from liftnn._src.type_variables import P, R


def unwrap_callable(
    function: Callable[..., Any], name: str
) -> tuple[Callable[..., Any], tuple[Any, ...], tuple[tuple[Any, ...], dict[str, Any]] | None]:
    """Finds the modules that a callable carries with it.

    Args:
      function: A function, bound method, module or partial.
      name: The transform, for messages.

    Returns:
      The function itself; the arguments that come first (the module of a bound method); and what a partial stores.

    Raises:
      ArgumentTypeError: If it is not callable.
    """
    if isinstance(function, functools.partial):
        inner, first, stored = unwrap_callable(function.func, name)
        args, kwargs = stored or ((), {})
        return inner, (), ((*args, *first, *function.args), {**kwargs, **function.keywords})
    if isinstance(function, Module):
        return type(function).__call__, (function,), None
    if isinstance(function, types.MethodType) and is_object(function.__self__):
        return function.__func__, (function.__self__,), None
    if inspect.isgeneratorfunction(function):
        raise errors.ArgumentTypeError(
            f"liftnn.{name} got a generator function, {function.__qualname__}, which computes nothing when called.",
            "Return the values, in a list or stacked, instead of yielding them.",
        )
    if not callable(function):
        raise errors.ArgumentTypeError(
            f"liftnn.{name} needs a function, not {an(type(function))}.",
            "Put @classmethod above the transform."
            if isinstance(function, classmethod)
            else "Pass a callable.",
        )
    return function, (), None


def is_fixed(stored: tuple[tuple[Any, ...], dict[str, Any]] | None) -> bool:
    """Whether what a partial stores cannot change, so that JAX may take it for constants."""
    given = () if stored is None else (*stored[0], *stored[1].values())
    return jax.tree_util.all_leaves(given) and not any(isinstance(x, np.ndarray) for x in given)


def take_name(lifted: Any, function: Callable[..., Any]) -> None:
    """Gives a transformed function the name of the user's, and its attributes, as `functools.wraps` does."""
    attributes = vars(function) if type(function) is types.FunctionType else {}
    vars(lifted).update({name: x for name, x in attributes.items() if name not in vars(lifted)})
    functools.update_wrapper(lifted, function, updated=())


def name_of(lifted: Any) -> str:
    """What a transformed function is called; `repr` is code of the user's, which may raise."""
    try:
        return str(getattr(lifted, "__qualname__", None) or repr(lifted.__wrapped__))
    except Exception:
        return f"{an(type(lifted.__wrapped__))}"


Q = ParamSpec("Q")


class Bindable(Generic[P, R]):
    """Base class of callables that can be methods."""

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(
        self: Bindable[Concatenate[Any, Q], R], instance: object, owner: type | None = None
    ) -> Callable[Q, R]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function."""
        raise NotImplementedError
