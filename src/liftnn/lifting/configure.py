"""How every transform is called: `t(f, ...)`, `@t`, `@t(...)`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from liftnn.tracebacks import boundary


class _Missing:
    """The type of `MISSING`."""

    def __repr__(self) -> str:
        return "<function>"


MISSING: Any = _Missing()
"""Stands for the function when only options are given."""


def configurable(transform: Callable[..., Any]) -> Any:
    """Lets a transform be called with options alone, which gives a decorator.

    Args:
      transform: Takes the function first, positionally, and options by keyword.

    Returns:
      The transform, which may also be called without the function.
    """

    @boundary
    @functools.wraps(transform)
    def wrapper(f: Any = MISSING, /, *args: Any, **options: Any) -> Any:
        if f is MISSING:
            return functools.partial(wrapper, *args, **options)
        return transform(f, *args, **options)

    return wrapper
