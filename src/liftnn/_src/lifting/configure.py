"""The three ways to call a transform: `t(f, ...)`, `@t` and `@t(...)`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from liftnn import errors
from liftnn._src.graph.recipes import Recipe
from liftnn._src.lifting.callables import Bindable
from liftnn._src.lifting.lift import Lifted
from liftnn._src.tracebacks import boundary
from liftnn._src.type_variables import P, R

Given = ParamSpec("Given")
"""The options of a transform, which a type checker reads from its definition."""
Out = TypeVar("Out")


class KeepsSignature(Protocol[Given]):
    """The type of a transform that returns a function of the same signature."""

    @overload
    def __call__(self, f: Callable[P, R], /, *args: Given.args, **options: Given.kwargs) -> Lifted[P, R]: ...

    @overload
    def __call__(
        self, *args: Given.args, **options: Given.kwargs
    ) -> Callable[[Callable[P, R]], Lifted[P, R]]: ...


class KeepsArguments(Protocol[Given, Out]):
    """The type of a transform that returns a function with the same arguments and another result."""

    @overload
    def __call__(
        self, f: Callable[P, Any], /, *args: Given.args, **options: Given.kwargs
    ) -> Lifted[P, Out]: ...

    @overload
    def __call__(
        self, *args: Given.args, **options: Given.kwargs
    ) -> Callable[[Callable[P, Any]], Lifted[P, Out]]: ...


class _Missing:
    """The type of `MISSING`."""

    def __repr__(self) -> str:
        return "<function>"


MISSING: Any = _Missing()
"""The default of the function argument: only options were passed."""


def configurable(transform: Callable[..., Any]) -> Any:
    """Let a transform be called with options only; then it returns a decorator.

    Args:
      transform: Takes the function first, by position, and the options by keyword.

    Returns:
      The transform, which may also be called without the function. It is untyped: wrap `configurable` with a type that
      describes the new signature, as `keeps_signature` does.
    """
    _, *options = inspect.signature(transform).parameters.values()
    names = [p.name for p in options]
    positional = any(p.kind is not p.KEYWORD_ONLY for p in options)

    @boundary
    @functools.wraps(transform)
    def wrapper(f: Any = MISSING, /, *args: Any, **options: Any) -> Any:
        if f is MISSING and "fun" in options:  # JAX's name for it
            f = options.pop("fun")
        args = tuple(map(keep_items, args))
        options = {name: keep_items(option) for name, option in options.items()}
        if f is MISSING:
            return functools.partial(wrapper, *args, **options)
        if args and not positional:
            raise errors.ArgumentTypeError(
                f"liftnn.{transform.__name__} takes a function and keyword options, and returns a function "
                "that takes the arguments.",
                f"Write `liftnn.{transform.__name__}(f)(*args)`. The options are {', '.join(names)}.",
            )
        transformed = transform(f, *args, **options)
        if isinstance(transformed, Bindable):
            transformed.__recipe__ = Recipe(wrapper, args, options)
        return transformed

    return wrapper


def keep_items(option: Any) -> Any:
    """Return an option that may be read more than once, and that nobody changes later."""
    return list(option) if type(option) is list or isinstance(option, Iterator) else option


def keeps_signature(
    transform: Callable[Concatenate[Callable[..., Any], Given], Lifted[..., Any]],
) -> KeepsSignature[Given]:
    """Apply `configurable` to a transform that returns a function of the same signature."""
    return configurable(transform)


def keeps_arguments(
    transform: Callable[Concatenate[Callable[..., Any], Given], Lifted[..., Out]],
) -> KeepsArguments[Given, Out]:
    """Apply `configurable` to a transform that declares the result type of the transformed function."""
    return configurable(transform)
