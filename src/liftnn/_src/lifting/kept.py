"""Caches attached to a user's function: they live as long as the function, and refer to it weakly.

JAX caches traces by the identity of a function, and so does liftnn: a second wrapper of the same function finds the
objects made for the first one. When the function is dropped, its cache is dropped with it.
"""

from __future__ import annotations

import inspect
import types
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

_MOST = 64
"""The maximum number of entries in the cache of one function."""

_kept: weakref.WeakKeyDictionary[Any, dict[Hashable, Any]] = weakref.WeakKeyDictionary()


def keep_with(function: Callable[..., Any], key: Hashable, make: Callable[[], T]) -> T:
    """Return an object from the cache of a function, or make it. The object must not refer to the function.

    Args:
      function: The function. Nothing is cached for other callables, since two of them may be equal but not identical.
      key: The key in the cache; nothing is cached if it is not hashable.
      make: Makes the object.

    Returns:
      The cached or new object.
    """
    if type(function) is not types.FunctionType:
        return make()
    kept = _kept.setdefault(function, {})
    try:
        found = kept.get(key, kept)
    except TypeError:
        return make()
    if found is not kept:
        return found
    while len(kept) >= _MOST:  # options that never repeat must not fill the memory
        kept.pop(next(iter(kept)), None)
    return kept.setdefault(key, make())


class WeakFunction:
    """A callable that calls a user's function and refers to it weakly.

    Args:
      function: The function; the reference is strong if the function does not support weak references.
    """

    def __init__(self, function: Callable[..., Any]):
        try:
            self._refer: Callable[[], Any] = weakref.ref(function)
        except TypeError:
            self._refer = lambda: function

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The user's function, for JAX's messages."""
        return self._refer()

    def __getattr__(self, name: str) -> Any:
        if name == "__signature__":  # cached: slow to compute, and read in each call of an eager transform
            try:
                self.__signature__ = inspect.signature(self._refer())
            except (TypeError, ValueError):
                raise AttributeError(name) from None
            return self.__signature__
        return getattr(self._refer(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self._refer()(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self._refer())
