"""Loops and branches in plain Python: compiled by `jit`, and kept with the user's functions.

A loop outside of all transforms would be traced and compiled in each call. JAX keeps what it has compiled for the same
function, and so does liftnn: the call becomes the body of a `jit`, which finds captured modules, watches what the call
depends on, and is dropped together with the user's functions.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax

from liftnn import errors
from liftnn._src.compilation.jit import jit
from liftnn._src.graph.kinds import is_object
from liftnn._src.lifting.array_calls import is_jit_disabled
from liftnn._src.lifting.callables import call_method
from liftnn._src.lifting.kept import WeakCache, WeakFunction
from liftnn._src.lifting.lift import Lifted
from liftnn._src.modules.module import Module
from liftnn._src.trees import is_argument_array
from liftnn._src.variables import frames

ApplyFunctions = Callable[[Sequence[Callable[..., Any]], Sequence[Any]], Any]


class CallNames(NamedTuple):
    """The names of a call in messages.

    Args:
      transform: The name of the transform.
      functions: The names of the functions.
      operands: The names of the operands.
    """

    transform: str
    functions: Sequence[str]
    operands: Sequence[str]


def call_kept(
    key: Hashable,
    apply: ApplyFunctions,
    functions: Sequence[Any],
    operands: Sequence[Any],
    names: Callable[[], CallNames],
    otherwise: Callable[[], Any] | None = None,
) -> Any:
    """Make a call of a loop or branch; in plain Python, compile it once.

    Args:
      key: The name and the options of the transform; nothing is kept if it is not hashable.
      apply: Called with the functions and the operands; makes the call. It must not refer to either.
      functions: The user's functions.
      operands: The arguments.
      names: Returns the names of all of them in messages.
      otherwise: Makes the call without compiling it. The default, None, means that `apply` does.

    Returns:
      The output of the call.
    """
    otherwise = otherwise or functools.partial(apply, functions, operands)
    parts = [_divide(f) for f in functions]
    if None in parts or not frames.is_plain() or is_jit_disabled() or not _takes_arrays(operands):
        return otherwise()
    divided = [part for part in parts if part is not None]
    bare, owners = [f for f, _ in divided], [owner for _, owner in divided]
    first, *others = bare
    kinds = tuple([(owner is None, owner is f) for f, owner in zip(functions, owners, strict=True)])
    full_key = (key, len(operands), tuple(map(weakref.ref, others)), kinds)
    kept = _kept.get(
        first, full_key, lambda: _KeptCall(apply, bare, _name_owners(names(), functions, owners))
    )
    if kept.needs_values:
        return otherwise()
    try:
        return kept.jitted(*owners, *operands)
    except _NEEDS_VALUES as error:
        if _is_of_the_loop(error):
            raise
        kept.needs_values = True  # a function reads the value of something that it shares with the caller
    except errors.TraceContextError:
        pass  # perhaps it changes what it also captures, and only the loop knows that this is a slice
    return otherwise()


class KeptCalls:
    """Makes the calls of a transformed function in plain Python; see `Options.in_plain`.

    Args:
      name: The name of the transform.
      f: The user's function.
      transform: Applies the transform, with the same options, to a function.
      options: The options; nothing is kept if they are not hashable.
    """

    def __init__(self, name: str, f: Any, transform: Callable[[Any], Any], options: tuple[Any, ...]):
        self._f = f
        self._transform = transform
        self._key = (name, *options)

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any], otherwise: Callable[[], Any]) -> Any:
        """Make a call.

        Args:
          args: The positional arguments.
          kwargs: The keyword arguments.
          otherwise: Makes the call without compiling it.

        Returns:
          The output of the call.
        """
        transform, n, keywords = self._transform, len(args), tuple(kwargs)

        def apply(functions: Sequence[Callable[..., Any]], operands: Sequence[Any]) -> Any:
            lifted: Lifted[..., Any] = transform(*functions)
            return lifted._call_here(tuple(operands[:n]), dict(zip(keywords, operands[n:], strict=True)))

        operands = (*args, *kwargs.values())

        def names() -> CallNames:
            start = 0 if type(self._f) is types.FunctionType else 1
            positional = [f"args[{i}]" for i in range(start, n + start)]
            return CallNames(self._key[0], (_FIRST,), [*positional, *(f"kwargs[{k!r}]" for k in keywords)])

        return call_kept((self._key, n, keywords), apply, (self._f,), operands, names, otherwise)


_NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def _is_of_the_loop(error: Exception) -> bool:
    """Return whether JAX says that a value is missing in a trace inside the `jit`, so that it is missing without it."""
    text = str(error)
    return "while tracing the function" in text and "for jit." not in text


class _KeptCall:
    """A compiled call.

    Args:
      apply: Makes the call.
      functions: The user's functions, without the modules of bound methods.
      names: The names of the call in messages.
    """

    def __init__(self, apply: ApplyFunctions, functions: Sequence[Callable[..., Any]], names: CallNames):
        self.jitted = jit(_Call(apply, functions))
        self.jitted._rename(names.transform, (*names.functions, *names.operands))
        self.jitted._traces.warns = False  # all calls of a layer may share one step, whatever their shapes
        self.needs_values = False
        """Whether the call cannot be compiled."""


class _Call:
    """A call as a function of its operands; it refers weakly to the user's functions.

    Args:
      apply: Makes the call.
      functions: The user's functions, without the modules of bound methods.
    """

    def __init__(self, apply: ApplyFunctions, functions: Sequence[Callable[..., Any]]):
        self._apply = apply
        self._functions = [WeakFunction(f) for f in functions]

    def __call__(self, /, *arguments: Any) -> Any:
        """Make the call.

        Args:
          *arguments: The module of each bound method, None for a function; then the operands.
        """
        functions = self.__carried_functions__()
        n = len(functions)
        pairs = zip(functions, arguments[:n], strict=True)
        return self._apply(
            [f if owner is None else types.MethodType(f, owner) for f, owner in pairs], arguments[n:]
        )

    def __carried_functions__(self) -> tuple[Any, ...]:
        """Return the functions, which may capture modules; see `Lifted`."""
        return tuple([f.function for f in self._functions])

    def __repr__(self) -> str:
        return " and ".join([f.__qualname__ for f in self.__carried_functions__()])


def _divide(function: Any) -> tuple[Callable[..., Any], Any] | None:
    """Return a function and the module that it is a method of, or None; None if its calls are not kept."""
    if type(function) is types.FunctionType:
        return function, None
    if type(function) is types.MethodType and is_object(function.__self__):
        return _as_function(function.__func__, function.__self__)
    if isinstance(function, Module):
        return _as_function(call_method(type(function)), function)
    return None


def _name_owners(names: CallNames, functions: Sequence[Any], owners: Sequence[Any]) -> CallNames:
    """Return the names of a call with those of the modules of bound methods in place of the functions."""
    named = zip(names.functions, functions, owners, strict=True)
    of_owners = [n if owner is f or n == _FIRST else f"{n}.__self__" for n, f, owner in named]
    return names._replace(functions=of_owners)


_FIRST = "args[0]"
"""The name of the module of a transformed method: the first argument."""


def _as_function(function: Any, owner: Any) -> tuple[Callable[..., Any], Any] | None:
    """Return a function and its module; None if it is not a plain function."""
    return (function, owner) if type(function) is types.FunctionType else None


def _takes_arrays(operands: Sequence[Any]) -> bool:
    """Return whether all leaves are arrays or modules, so that none is static."""
    return all(is_object(x) or is_argument_array(x) for x in jax.tree.leaves(operands, is_leaf=is_object))


_kept = WeakCache(most=16)
