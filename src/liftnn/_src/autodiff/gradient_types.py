"""The types of `grad` and `value_and_grad` for type checkers: the gradient's type follows from the first argument.

A type checker first binds the user's function to a protocol, then selects an overload by the first parameter. Lambdas
and functions without annotations therefore have gradients of type `Any`, never of a wrong type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

import jax
from jax.typing import ArrayLike

from liftnn._src.autodiff.selection import ArgNums, DiffState
from liftnn._src.lifting.callables import Q
from liftnn._src.lifting.configure import Given, configurable
from liftnn._src.lifting.lift import Lifted
from liftnn._src.modules.module import Module
from liftnn._src.type_variables import Aux, Out, P, R
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

M = TypeVar("M", bound=Module)
A = TypeVar("A", bound=ArrayLike)
V = TypeVar("V", bound=Variable[Any])
Several = Sequence[int | DiffState]
Rest = ParamSpec("Rest")


class Unsaid:
    """A type that only `Any` matches: it selects the overload for functions without annotations."""


class CallableModule(Protocol[P, Out]):
    """A module, which is argument 0 of its own call."""

    __graph_node__: bool

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Out:
        """Call the module."""
        ...


class BoundMethod(Protocol):
    """A bound method, with its module as argument 0, of unknown type."""

    @property
    def __func__(self) -> Any: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method."""
        ...


class Gradient(Protocol[P, Out]):
    """The gradient of a function with respect to its first argument."""

    @overload
    def __call__(self: Gradient[Concatenate[Unsaid, ...], Any], *args: Any, **kwargs: Any) -> Any: ...

    @overload
    def __call__(self: Gradient[P, Unsaid], *args: P.args, **kwargs: P.kwargs) -> Any: ...

    @overload
    def __call__(
        self: Gradient[Concatenate[M, Q], ArrayLike], *args: P.args, **kwargs: P.kwargs
    ) -> State: ...

    @overload
    def __call__(
        self: Gradient[Concatenate[M, Q], tuple[Any, Aux]], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[State, Aux]: ...

    @overload
    def __call__(self: Gradient[Concatenate[V, Q], ArrayLike], *args: P.args, **kwargs: P.kwargs) -> V: ...

    @overload
    def __call__(
        self: Gradient[Concatenate[V, Q], tuple[Any, Aux]], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[V, Aux]: ...

    @overload
    def __call__(
        self: Gradient[Concatenate[A, Q], ArrayLike], *args: P.args, **kwargs: P.kwargs
    ) -> jax.Array: ...

    @overload
    def __call__(
        self: Gradient[Concatenate[A, Q], tuple[Any, Aux]], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[jax.Array, Aux]: ...

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any: ...

    def __get__(
        self: Gradient[Concatenate[Any, Q], Any], instance: object, owner: type | None = None, /
    ) -> Callable[Q, Any]: ...


class ValueAndGradient(Protocol[P, Out]):
    """The output of a function and its gradient with respect to its first argument."""

    @overload
    def __call__(
        self: ValueAndGradient[Concatenate[Unsaid, ...], R], *args: Any, **kwargs: Any
    ) -> tuple[R, Any]: ...

    @overload
    def __call__(
        self: ValueAndGradient[Concatenate[M, Q], R], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[R, State]: ...

    @overload
    def __call__(
        self: ValueAndGradient[Concatenate[V, Q], R], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[R, V]: ...

    @overload
    def __call__(
        self: ValueAndGradient[Concatenate[A, Q], R], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[R, jax.Array]: ...

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> tuple[Out, Any]: ...

    def __get__(
        self: ValueAndGradient[Concatenate[Any, Q], R], instance: object, owner: type | None = None, /
    ) -> Callable[Q, tuple[R, Any]]: ...


class Grad(Protocol[Given]):
    """The type of `grad` with its options."""

    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # a module is a callable, but is itself argument 0
        self,
        f: CallableModule[P, ArrayLike],
        /,
        argnums: Literal[0] = 0,
        *args: Given.args,
        **options: Given.kwargs,
    ) -> Lifted[P, State]: ...

    @overload
    def __call__(
        self,
        f: CallableModule[P, tuple[Any, Aux]],
        /,
        argnums: Literal[0] = 0,
        *args: Given.args,
        **options: Given.kwargs,
    ) -> Lifted[P, tuple[State, Aux]]: ...

    @overload
    def __call__(
        self, f: BoundMethod, /, argnums: ArgNums = 0, *args: Given.args, **options: Given.kwargs
    ) -> Lifted[..., Any]: ...

    @overload
    def __call__(
        self, f: Callable[P, R], /, argnums: Literal[0] = 0, *args: Given.args, **options: Given.kwargs
    ) -> Gradient[P, R]: ...

    @overload
    def __call__(
        self, f: Callable[P, Any], /, argnums: Several, *args: Given.args, **options: Given.kwargs
    ) -> Lifted[P, tuple[Any, ...]]: ...

    @overload
    def __call__(
        self, f: Callable[P, Any], /, argnums: ArgNums, *args: Given.args, **options: Given.kwargs
    ) -> Lifted[P, Any]: ...

    @overload
    def __call__(
        self, argnums: ArgNums, *args: Given.args, **options: Given.kwargs
    ) -> Callable[[Callable[P, Any]], Lifted[P, Any]]: ...

    @overload
    def __call__(self, *args: Given.args, **options: Given.kwargs) -> Grad[...]: ...


class ValueAndGrad(Protocol[Given]):
    """The type of `value_and_grad` with its options."""

    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # a module is a callable, but is itself argument 0
        self,
        f: CallableModule[P, R],
        /,
        argnums: Literal[0] = 0,
        *args: Given.args,
        **options: Given.kwargs,
    ) -> Lifted[P, tuple[R, State]]: ...

    @overload
    def __call__(
        self, f: BoundMethod, /, argnums: ArgNums = 0, *args: Given.args, **options: Given.kwargs
    ) -> Lifted[..., tuple[Any, Any]]: ...

    @overload
    def __call__(
        self, f: Callable[P, R], /, argnums: Literal[0] = 0, *args: Given.args, **options: Given.kwargs
    ) -> ValueAndGradient[P, R]: ...

    @overload
    def __call__(
        self, f: Callable[P, R], /, argnums: Several, *args: Given.args, **options: Given.kwargs
    ) -> Lifted[P, tuple[R, tuple[Any, ...]]]: ...

    @overload
    def __call__(
        self, f: Callable[P, R], /, argnums: ArgNums, *args: Given.args, **options: Given.kwargs
    ) -> Lifted[P, tuple[R, Any]]: ...

    @overload
    def __call__(
        self, argnums: ArgNums, *args: Given.args, **options: Given.kwargs
    ) -> Callable[[Callable[P, R]], Lifted[P, tuple[R, Any]]]: ...

    @overload
    def __call__(self, *args: Given.args, **options: Given.kwargs) -> ValueAndGrad[...]: ...


def gives_gradient(
    transform: Callable[Concatenate[Callable[..., Any], ArgNums, Given], Lifted[..., Any]],
) -> Grad[Given]:
    """Apply `configurable` with the type of `grad`."""
    return configurable(transform)


def gives_value_and_gradient(
    transform: Callable[Concatenate[Callable[..., Any], ArgNums, Given], Lifted[..., Any]],
) -> ValueAndGrad[Given]:
    """Apply `configurable` with the type of `value_and_grad`."""
    return configurable(transform)
