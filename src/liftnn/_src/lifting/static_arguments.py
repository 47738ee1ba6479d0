"""Static arguments, by position and by name: they are part of the cache key, and not traced."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from liftnn import errors
from liftnn._src.lifting.arguments import StaticArgument
from liftnn._src.lifting.call import Call
from liftnn._src.lifting.callables import count_uncounted
from liftnn._src.lifting.lift import Bind, Lifted, LiftOptions
from liftnn._src.lifting.signature import Selected, select
from liftnn._src.static_values.value_types import is_hashable
from liftnn._src.trees import an
from liftnn._src.type_variables import P, R


class WithStatic(Lifted[P, R]):
    """A transformed function with static arguments.

    Args:
      f: The user's function.
      bind: Applies the transform.
      options: The options of the transform.
      argnums: The positions of the static arguments.
      argnames: The names of the static arguments.
      what: The prefix of the names of these two options, before `_argnums`.
      hashable: Whether static arguments must be hashable. The default is True.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        bind: Bind,
        options: LiftOptions,
        argnums: int | Sequence[int] | None,
        argnames: str | Iterable[str] | None,
        what: str = "static",
        hashable: bool = True,
    ):
        super().__init__((f,), bind, options)
        self._n_uncounted = count_uncounted(f)
        self._called = f if self._n_uncounted or isinstance(f, functools.partial) else self._functions[0]
        """The function with the arguments that the positions in options count."""
        self._static = self._select(argnums, argnames, what)
        self._mark = _static if hashable else _without_module

    def _select(
        self, argnums: int | Sequence[int] | None, argnames: str | Iterable[str] | None, what: str
    ) -> Selected:
        """Resolve a pair of options to positions, with the module or dataclass of a bound method as 0, and names."""
        return select(self._called, argnums, argnames, what).after(self._n_uncounted)

    def _arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not self._static:
            return args, kwargs
        positions = self._static.positions(len(args))
        marked = [self._mark(x, f"args[{i}]") if i in positions else x for i, x in enumerate(args)]
        names = self._static.names
        return tuple(marked), {
            k: self._mark(x, f"kwargs[{k!r}]") if k in names else x for k, x in kwargs.items()
        }

    def _flatten_without_static(self, like: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Flatten arguments without static ones; the static arguments are those of the call `like`."""
        count = len(like.static[0])
        if not self._static or len(args) + len(self._leading) == count:
            return self._flatten_call(args, {**like.static[1], **kwargs})
        rest = iter((*self._leading, *args))
        try:
            full = [next(rest) if x is None else x.value for x in like.static[0]]
        except StopIteration:
            full = list(args)
        return self._flatten_call(tuple(full[len(self._leading) :]), {**like.static[1], **kwargs})


def _without_module(x: Any, name: str) -> StaticArgument:
    """Mark an argument as static; raise if it contains a module."""
    module = _find_module(x)
    if module is not None:
        what = f"is {an(type(x))}" if module is x else f"contains {an(type(module))}"
        raise errors.ArgumentError(
            f"{name} {what}, so it cannot be static: later changes to the module would not be seen.",
            "Remove it from static_argnums and static_argnames; static attributes of modules are part of the cache key "
            "anyway.",
        )
    return StaticArgument(x)


def _static(x: Any, name: str) -> StaticArgument:
    """Mark an argument as static; raise if it contains a module or is not hashable."""
    marked = _without_module(x, name)
    if not is_hashable(x):
        raise errors.ArgumentError(
            f"{name} is static and must be hashable, but is {an(type(x))}: {x!r:.60}.",
            "Pass a hashable value, such as a tuple instead of a list or a frozen dataclass instead of a dict.",
        )
    return marked


def _find_module(x: Any) -> Any:
    """Find a Module or Variable in a static argument, also in immutable containers; None if there is none."""
    stack = [x]
    while stack:
        y = stack.pop()
        if hasattr(type(y), "__graph_node__"):
            return y
        if isinstance(y, (tuple, frozenset)):
            stack += y
        elif dataclasses.is_dataclass(y) and not isinstance(y, type):
            stack += [getattr(y, field.name, None) for field in dataclasses.fields(y)]
    return None
