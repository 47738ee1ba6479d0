"""What a function in a class body does: as an attribute of an object it is a method."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, Self, overload

from liftnn._src.type_variables import P, R

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
