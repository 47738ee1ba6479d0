"""`use_eager_sharding`: whether Variables are placed as they declare when they are created."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import jax

from liftnn import errors
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import an

F = TypeVar("F", bound=Callable[..., Any])


class _Stacks(threading.local):
    """The values of each setting in this thread."""

    def __init__(self) -> None:
        self.values: dict[str, list[bool]] = {}


_stacks = _Stacks()
_eager = jax.make_user_context(default_value=True)
"""The setting as a part of the cache key of `jax.jit`."""


@boundary
class Setting(contextlib.ContextDecorator):
    """A setting that is set by the call, and restored at the end of a `with` block or of a decorated function.

    Args:
      value: The new value.

    Raises:
      ArgumentTypeError: If it is not a bool.
    """

    default: ClassVar[bool] = True

    def __init__(self, value: bool, /):
        if not isinstance(value, bool):
            raise errors.ArgumentTypeError(
                f"{type(self).__name__} takes True or False, not {an(type(value))}.", "Pass a bool."
            )
        self._value, self._before = value, self.current_value()
        self._values()[-1:] = [value]
        self._changed()

    @classmethod
    def _values(cls) -> list[bool]:
        return _stacks.values.setdefault(cls.__name__, [])

    @classmethod
    def _changed(cls) -> None:
        """Act on a new value."""

    @classmethod
    def current_value(cls) -> bool:
        """Return the current value."""
        return [cls.default, *cls._values()][-1]

    def __enter__(self) -> Setting:
        self._values()[-1:] = [self._before]
        self._values().append(self._value)
        self._changed()
        return self

    def __exit__(self, *error: object) -> None:
        self._values().pop()
        self._changed()

    def __call__(self, f: F) -> F:
        """Return a function that runs under the setting; the setting itself is restored now."""
        self._values()[-1:] = [self._before]
        self._changed()
        return super().__call__(f)


class use_eager_sharding(Setting):  # noqa: N801  # used like a function
    """Set whether a Variable that declares a sharding is placed on the current mesh when it is created.

    A call changes the setting in this thread; a `with` block or a decorated function restores it. The metadata
    `eager_sharding=False` has the same effect for one Variable.

    Args:
      value: True, the setting if it was never set, or False.

    Raises:
      ArgumentTypeError: If it is not a bool.

    Example:
      >>> import liftnn
      >>> with liftnn.use_eager_sharding(False):
      ...   liftnn.using_eager_sharding()
      False
    """

    @classmethod
    def _changed(cls) -> None:
        _eager(cls.current_value()).__enter__()  # for the rest of this thread, until the next change


def using_eager_sharding() -> bool:
    """Return the setting of `use_eager_sharding`.

    Returns:
      The value; True if it was never set.

    Example:
      >>> import liftnn
      >>> liftnn.using_eager_sharding()
      True
    """
    return use_eager_sharding.current_value()
