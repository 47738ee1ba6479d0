"""Names that Flax NNX has for parameters which liftnn takes by position, or under another name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from liftnn._src.tracebacks import hide_frames

F = TypeVar("F", bound=Callable[..., Any])


def take_by_name(f: F, name: str) -> F:
    """Let the parameter that follows the positional arguments of a call be passed under a name.

    Args:
      f: The function, which takes it by position.
      name: Its name in Flax NNX.

    Returns:
      A function with the same signature otherwise, which hides its own frame in errors.
    """

    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        if name in kwargs:
            args = (*args, kwargs.pop(name))
        try:
            return f(*args, **kwargs)
        except Exception as error:
            hide_frames(error)
            raise

    return call  # pyright: ignore[reportReturnType]  # the same signature
