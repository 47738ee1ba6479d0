"""What is kept with a function of the user's for as long as it lives, and refers to it weakly.

JAX keeps what it has traced by the identity of a function. So does liftnn: who wraps the same function again finds what
has been made for it, and when it is dropped, everything goes with it at once.
"""

from __future__ import annotations

import inspect
import types
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

_MOST = 64
"""How many things are kept with one function."""

_kept: weakref.WeakKeyDictionary[Any, dict[Hashable, Any]] = weakref.WeakKeyDictionary()


def keep_with(function: Callable[..., Any], key: Hashable, make: Callable[[], T]) -> T:
    """Something that is kept for as long as a function lives, and must not refer to it.

    Args:
      function: The function; nothing is kept for other callables, which may be equal and not the same.
      key: What tells it from other things that are kept with the function; nothing is kept if it has no hash.
      make: Makes it.

    Returns:
      What is kept, or was made.
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
    """Calls a function of the user's that somebody else keeps.

    Args:
      function: The function; it is kept here if nothing can refer to it weakly.
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
        if name == "__signature__":  # asked for in each call under an eager transform, and slow to find
            try:
                self.__signature__ = inspect.signature(self._refer())
            except (TypeError, ValueError):
                raise AttributeError(name) from None
            return self.__signature__
        return getattr(self._refer(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function."""
        return self._refer()(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self._refer())
