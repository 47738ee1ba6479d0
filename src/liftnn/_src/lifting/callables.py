"""Callables: the module inside a bound method or partial, transformed functions as methods, and calls in a frame."""

from __future__ import annotations

import copy
import functools
import inspect
import operator
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, Self, overload

import jax
import numpy as np

from liftnn import errors
from liftnn._src.graph.kinds import is_object
from liftnn._src.graph.recipes import Recipe
from liftnn._src.lifting.names import Named
from liftnn._src.modules.module import Module
from liftnn._src.modules.portable import importable_name
from liftnn._src.stack_room import call_with_room
from liftnn._src.trees import an
from liftnn._src.type_variables import P, R
from liftnn._src.variables import frames

_PLACEHOLDER = getattr(functools, "Placeholder", object())
"""A gap in a partial, since Python 3.14: the stored arguments are not the first ones then, but captured."""


def unwrap_callable(
    function: Callable[..., Any], name: str
) -> tuple[Callable[..., Any], tuple[Any, ...], tuple[tuple[Any, ...], dict[str, Any]] | None]:
    """Unwrap a callable into a function and the arguments that it carries.

    Args:
      function: A function, bound method, module or partial.
      name: The name of the transform in messages.

    Returns:
      The function; the leading arguments (the module of a bound method); and the arguments stored in a partial, None
      if there is no partial.

    Raises:
      ArgumentError: If it is a method that only switches the mode of a module.
      ArgumentTypeError: If it is not callable, async or a generator function.
    """
    if isinstance(function, functools.partial) and all(x is not _PLACEHOLDER for x in function.args):
        inner, first, stored = unwrap_callable(function.func, name)
        args, kwargs = stored or ((), {})
        return inner, (), ((*args, *first, *function.args), {**kwargs, **function.keywords})
    if isinstance(function, Module) and callable(function):
        method = call_method(type(function))
        _check_returns(getattr(method, "__wrapped__", method), name)  # without the wrapper of each layer
        return method, (function,), None
    _check_returns(function, name)
    if isinstance(function, types.MethodType) and is_object(function.__self__):
        _check_computes(function, name)
        return function.__func__, (function.__self__,), None
    # An OptState has `__call__`, for its error.
    if not callable(function) or hasattr(type(function), "__graph_node__"):
        raise errors.ArgumentTypeError(
            f"liftnn.{name} needs a function, not {an(type(function))}.",
            "Put @classmethod above the transform."
            if isinstance(function, classmethod)
            else "Define its `__call__`, or pass one of its methods."
            if isinstance(function, Module)
            else "Pass a callable.",
        )
    return function, (), None


def call_method(cls: type[Any]) -> Callable[..., Any]:
    """Return the function that a call of a module runs, with the module as its first argument.

    Args:
      cls: The class of the module. Where its `__call__` does not bind like a function, as a static method, or one of
        `functools.singledispatchmethod`, the function makes the call.
    """
    method = cls.__call__  # an error where a class has `forward` in its place
    found = inspect.getattr_static(cls, "__call__")
    return method if isinstance(found, (types.FunctionType, Bindable)) else _call_module


def _call_module(module: Any, /, *args: Any, **kwargs: Any) -> Any:
    return module(*args, **kwargs)


def _check_returns(function: Any, name: str) -> None:
    """Raise ArgumentTypeError for an async function or a generator function, which returns before it has run."""
    is_object_with_call = callable(function) and not isinstance(
        function, (types.FunctionType, types.MethodType)
    )
    called: Any = type(function).__call__ if is_object_with_call else function
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise errors.ArgumentTypeError(
            f"liftnn.{name} got an async function, {called.__qualname__}, which computes nothing when called.",
            "Define it with `def`, and call it from an async function.",
        )
    if inspect.isgeneratorfunction(called):
        raise errors.ArgumentTypeError(
            f"liftnn.{name} got a generator function, {called.__qualname__}, which computes nothing when called.",
            "Return the values, in a list or stacked, instead of yielding them.",
        )


def _check_computes(method: types.MethodType, name: str) -> None:
    """Raise ArgumentError for a method that switches the mode of a module, and is easily taken for a step."""
    if method.__func__ in (Module.train, Module.eval):
        mode = method.__func__.__name__
        raise errors.ArgumentError(
            f"liftnn.{name} got the method `{mode}` of {an(type(method.__self__))}, which switches the mode of the "
            "layers and computes nothing.",
            f"Call `model.{mode}()` outside, and pass the model, as in `liftnn.{name}(model)`, or a function of it.",
        )


def undecorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that a transformed function transforms, through all of its transforms."""
    while isinstance(function, Bindable):
        function = function.__wrapped__
    return function


def is_layer_call(function: Callable[..., Any]) -> bool:
    """Return whether a transform decorates a method `__call__`."""
    inner = undecorated(function)
    return isinstance(inner, types.FunctionType) and inner.__name__ == "__call__"


def as_method(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function so that the arguments of its derivatives count as the user counts them.

    Args:
      function: A function. A transformed bound method, or a transformed module, is returned as a method: the module is
        argument 0. A bound method of a dataclass is returned as a function that captures it, as JAX counts.
    """
    inner = undecorated(function)
    owner = inner.__self__ if isinstance(inner, types.MethodType) else inner
    is_module = hasattr(type(owner), "__graph_node__")
    if not is_object(owner) or (is_module and inner is function):
        return function
    if is_module:  # the function captures the module, which is resolved to the argument
        return types.MethodType(lambda _, /, *args, **kwargs: function(*args, **kwargs), owner)
    return functools.wraps(function, updated=())(lambda *args, **kwargs: function(*args, **kwargs))


def count_uncounted(f: Callable[..., Any]) -> int:
    """Return how many leading arguments the positions in a user's options omit: 1 for the owner of a bound method.

    Args:
      f: The user's function. The module of a bound method is counted, as argument 0; a dataclass is not, as in JAX.
    """
    if not isinstance(f, types.MethodType) or not is_object(f.__self__):
        return 0
    return 0 if hasattr(type(f.__self__), "__graph_node__") else 1


def is_fixed(stored: tuple[tuple[Any, ...], dict[str, Any]] | None) -> bool:
    """Return whether the arguments stored in a partial cannot change in place, so JAX may treat them as constants."""
    arguments = () if stored is None else (*stored[0], *stored[1].values())
    return jax.tree_util.all_leaves(arguments) and not any(isinstance(x, np.ndarray) for x in arguments)


Q = ParamSpec("Q")


class Bindable(Named, Generic[P, R]):
    """Base class of transformed functions, which bind to instances when they are methods of a class."""

    __recipe__: Recipe | None = None
    """How to transform other functions in the same way; None if that is unknown."""
    _others: tuple[Callable[..., Any], ...] = ()
    """The functions beside the first one: those of a custom rule, or further ones that `lift` got."""
    __wrapped__: Callable[..., Any]

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(
        self: Bindable[Concatenate[Any, Q], R], instance: object, owner: type | None = None
    ) -> Callable[Q, R]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        raise NotImplementedError

    def __reduce__(self) -> Any:
        if name := importable_name(self):
            return name
        if self.__recipe__ is None:
            return super().__reduce__()
        return self.__recipe__, (self.__wrapped__, *self._others)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self.__recipe__ is None:
            return self
        functions = self.__wrapped__, *self._others
        copied = [copy.deepcopy(f, memo) for f in functions]
        return self if all(map(operator.is_, copied, functions)) else self.__recipe__(*copied)


_TRACED = frozenset(
    {
        "jit",
        "pmap",
        "eval_shape",
        "make_jaxpr",
        "scan",
        "map",
        "while_loop",
        "fori_loop",
        "cond",
        "switch",
        "remat",
        "checkify",
    }
)
"""The transforms that trace the user's function; the others run it if nothing outside traces."""


def call_in_frame(
    frame: frames.Frame, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Call the user's function in a frame; for the outermost trace with room on Python's stack."""
    if frame.outer is frames.PLAIN and frame.name in _TRACED:
        return call_with_room(function, args, kwargs)
    return function(*args, **kwargs)
