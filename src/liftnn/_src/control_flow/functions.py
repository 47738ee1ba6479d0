"""The functions of loops and branches: lifted together with the operands, and traced once each."""

from __future__ import annotations

import contextlib
import functools
import re
import types
from collections.abc import Callable, Generator
from typing import Any

import jax

from liftnn._src.graph.kinds import is_object
from liftnn._src.lifting.callables import unwrap_callable
from liftnn._src.lifting.contract import Plan, PureFunction
from liftnn._src.lifting.shown import LEAF_NAME, leaf_names, rename, show_as
from liftnn._src.modules.module import Module
from liftnn._src.static_values.static import static_key
from liftnn._src.variables import frames


class _Functions(Module):
    """The functions of one call, as attributes."""

    __holds_functions__ = True


class PackedFunction:
    """A callable that calls a function stored in a module.

    Args:
      name: The attribute that stores the function.
      position: The position in that attribute if it is a list, else None.
      function: The function, to search for captured modules.
    """

    def __init__(self, name: str, position: int | None, function: Callable[..., Any]):
        self._name = name
        self._position = position
        self._function = function
        self.__wrapped__ = function

    def __call__(self, holder: Module, *args: Any) -> Any:
        """Call the function that the holder, or its copy, stores."""
        attribute = getattr(holder, self._name)
        return (attribute if self._position is None else attribute[self._position])(*args)

    def __carried_functions__(self) -> tuple[Any, ...]:
        """Return the functions to search for captured modules; see `Lifted`."""
        return (self._function,)


class Closure:
    """A function with a closure that is not flattened; its captured modules are found as in any transform.

    Args:
      function: The function.
    """

    __slots__ = ("function", "key")

    def __init__(self, function: types.FunctionType):
        self.function = function
        self.key = static_key(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Closure) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def _as_static(function: Any) -> Any:
    """Wrap functions that capture what they need, so that they are not flattened.

    Partials and bound methods are flattened, unless an enclosing map withholds a part of what they carry.
    """
    if type(function) is types.FunctionType:
        return Closure(function)
    _, carried, stored = unwrap_callable(function, "")
    if any(
        frames.is_withheld(x) for x in jax.tree.leaves((carried, stored), is_leaf=is_object) if is_object(x)
    ):
        return Closure(lambda *args, **kwargs: function(*args, **kwargs))
    if type(function) is functools.partial:
        return functools.partial(_as_static(function.func), *function.args, **function.keywords)
    return function


def pack_functions(transform: str, **functions: Any) -> tuple[Module, list[PackedFunction]]:
    """Make functions an argument of the call, so that bound methods and modules among them are lifted.

    Args:
      transform: The name of the transform, for messages.
      **functions: A function, or a list of functions, by name.

    Returns:
      A module with the functions as attributes, and for each function a `PackedFunction`, which takes the module and
      the arguments.

    Raises:
      ArgumentTypeError: If one of them is not callable.
    """
    holder = _Functions()
    packed: list[PackedFunction] = []
    for name, attribute in functions.items():
        several = list(enumerate(attribute)) if isinstance(attribute, list) else [(None, attribute)]
        inner = [unwrap_callable(f, transform)[0] for _, f in several]
        static = [_as_static(f) for _, f in several]
        packed += [
            PackedFunction(name, position, f if type(x) is Closure else g)
            for (position, f), g, x in zip(several, inner, static, strict=True)
        ]
        setattr(holder, name, static if isinstance(attribute, list) else static[0])
    return holder, packed


@contextlib.contextmanager
def renaming(
    pattern: re.Pattern[str], name: Callable[[re.Match[str]], str], kind: type[Exception] = Exception
) -> Generator[None]:
    """Replace JAX's names of flat leaves by attribute paths in the text of an error.

    Args:
      pattern: Finds JAX's names.
      name: Returns the attribute path for what was found.
      kind: The errors to change. The default, Exception, means all.
    """
    try:
        yield
    except kind as error:
        rename(error, pattern, name)
        raise


_EARLY: Any = jax.Inline.JAX_EARLY if hasattr(jax, "Inline") else True  # pyright: ignore[reportAttributeAccessIssue]  # JAX 0.11
"""The body becomes a part of the loop's jaxpr, so a gradient adds in the order of hand-written JAX."""


class InlinedJit:
    """A pure function that JAX traces once for each type of its arguments, by an inlined `jax.jit`.

    The body of a loop is traced before the loop to find its carry. Without this class, each level of nested loops would
    double the number of traces of the innermost body. JAX's errors name attribute paths in place of flat arguments.

    Args:
      plan: The arguments.
      pure: The pure function.
      function: The user's function, for its name in JAX's messages.
    """

    def __init__(self, plan: Plan, pure: PureFunction, function: Any):
        self._names = leaf_names(plan)
        self._traced = jax.jit(show_as(lambda leaves: pure(leaves), function), inline=_EARLY)

    def __call__(self, leaves: Any) -> Any:
        """Return the result."""
        with renaming(LEAF_NAME, self._names):
            return self._traced(leaves)

    def eval_shape(self, leaves: Any) -> Any:
        """Return the abstract result."""
        with renaming(LEAF_NAME, self._names):
            return self._traced.eval_shape(leaves)
