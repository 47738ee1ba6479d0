"""Errors of calls that JAX has rejected before it ran the user's function.

Such a call is made again with modules. If liftnn cannot make it either, the user gets an error that `except` clauses
written for JAX catch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from liftnn import errors
from liftnn._src.tracebacks import has_users_frames


def after_rejection(rejection: Exception, call: Callable[[], Any]) -> Any:
    """Make a call that JAX has rejected.

    Args:
      rejection: JAX's error.
      call: Makes the call with modules.

    Returns:
      The output of the call.

    Raises:
      LiftError: If liftnn rejects the call too; its error is also an error of JAX's class.
      Exception: What the user's function raises; or JAX's first error if the call fails in JAX again, because the first
        one is about the user's own function and arguments.
    """
    try:
        return call()
    except errors.LiftError as error:
        make_also(error, next(c for c in type(rejection).__mro__ if c.__module__ == "builtins"))
        raise
    except Exception as error:
        if has_users_frames(error):
            raise
    raise rejection


def make_also(error: errors.LiftError, cls: type) -> None:
    """Make an error of liftnn an instance of another class too.

    Args:
      error: The error; its class is changed in place.
      cls: The other class, a built-in exception.
    """
    if not isinstance(error, cls):
        error.__class__ = _both(type(error), cls)


@functools.cache
def _both(error_class: type[errors.LiftError], other: type) -> type[errors.LiftError]:
    """Return a class that derives from an error class of liftnn and another one, with the name of the former."""
    names = {
        "__module__": error_class.__module__,
        "__qualname__": error_class.__qualname__,
        "__doc__": error_class.__doc__,
    }
    return type(error_class.__name__, (error_class, other), {**names, "__reduce__": _reduce})


def _reduce(error: errors.LiftError) -> Any:
    """Describe an error of two classes to pickle."""
    return _restore, (*type(error).__bases__, error.args)


def _restore(error_class: type[errors.LiftError], other: type, args: tuple[Any, ...]) -> errors.LiftError:
    """Make an unpickled error."""
    return _both(error_class, other)(*args)
