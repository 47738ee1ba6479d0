"""Caches attached to a user's function: they live as long as the function, and refer to it weakly.

JAX caches traces by the identity of a function, and so does liftnn: a second wrapper of the same function finds the
objects made for the first one. When the function is dropped, its cache is dropped with it.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from liftnn._src.annotations import signature_of
from liftnn._src.lifting.names import innermost

T = TypeVar("T")


class WeakCache:
    """Objects that are made for functions, by the identity of the function.

    Args:
      most: The maximum number of objects of one function; the oldest is dropped first. The default, None, means no
        limit, for keys that cannot become many.
    """

    def __init__(self, most: int | None = None):
        self._most = most
        self._kept: dict[tuple[int, ...], tuple[list[weakref.ref[Any]], dict[Hashable, Any]]] = {}

    def get(self, function: Callable[..., Any], key: Hashable, make: Callable[[], T]) -> T:
        """Return an object of a function, or make it. The object must not refer to the function.

        Args:
          function: The function. Two bound methods are the same if their functions and objects are. Nothing is kept if
            the function, or the object of a bound method, does not support weak references.
          key: The key; nothing is kept if it is not hashable.
          make: Makes the object.

        Returns:
          The kept or new object.
        """
        kept = self._of(function)
        try:
            found = kept.get(key, kept)
        except TypeError:
            return make()
        if found is not kept:
            return found
        while self._most is not None and len(kept) >= self._most:
            kept.pop(next(iter(kept)), None)
        return kept.setdefault(key, make())

    def _of(self, function: Any) -> dict[Hashable, Any]:
        """Return the objects of a function; a new dict that is not kept without support for weak references."""
        parts = (function.__self__, function.__func__) if type(function) is types.MethodType else (function,)
        address = tuple(map(id, parts))
        found = self._kept.get(address)
        if found is not None and all(r() is x for r, x in zip(found[0], parts, strict=True)):
            return found[1]
        objects: dict[Hashable, Any] = {}
        references: list[weakref.ref[Any]] = []

        def forget(_: Any) -> None:
            """Drop the objects, unless a new function has the address already."""
            if self._kept.get(address, (None,))[0] is references:
                self._kept.pop(address, None)
            references.clear()  # they refer to this function, which refers to them

        try:
            references += [weakref.ref(x, forget) for x in parts]
        except TypeError:
            return objects
        self._kept[address] = references, objects
        return objects


class WeakFunction:
    """A callable that calls a user's function and refers to it weakly.

    Args:
      function: The function; the reference is strong if the function does not support weak references. A bound method
        is referred to through its object.
    """

    def __init__(self, function: Callable[..., Any]):
        refer: Any = weakref.WeakMethod if type(function) is types.MethodType else weakref.ref
        try:
            self._refer: Callable[[], Any] = refer(function)
        except TypeError:
            self._refer = lambda: function

    @property
    def function(self) -> Callable[..., Any]:
        """The user's function."""
        return self._refer()

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The user's function without the partials around it: JAX's messages name it, and its line."""
        return innermost(self._refer())

    def __getattr__(self, name: str) -> Any:
        function = self._refer()
        if name in ("__name__", "__qualname__"):
            return getattr(innermost(function), name)
        if name == "__signature__":  # cached: slow to compute, and read in each call of an eager transform
            try:
                self.__signature__ = signature_of(function)
            except (TypeError, ValueError):
                raise AttributeError(name) from None
            return self.__signature__
        return getattr(function, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self._refer()(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self._refer())
