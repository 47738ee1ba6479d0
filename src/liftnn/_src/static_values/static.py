"""Static values compared by content: the part of a cache key that is not an array.

`==` is not enough for a key: `1 == True == 1.0`, `0.0 == -0.0`, lists are unhashable, and a new `optax.adam(1e-3)` is
a new closure that behaves like the old one. So a static value has a *key*, which is hashable and equal only for
interchangeable values. A false cache hit is worse than a retrace: values that cannot be compared by content are
compared by identity.
"""

from __future__ import annotations

import types
from typing import Any

from liftnn import errors
from liftnn._src.static_values.content import (
    Content,
    Copied,
    NotImmutableError as NotImmutableError,
    cannot_copy,
    content_of,
    copy_deeply,
    copy_differs,
)
from liftnn._src.static_values.object_content import ObjectContent
from liftnn._src.static_values.value_types import (
    FOREIGN_PACKAGES as FOREIGN_PACKAGES,
    SIMPLE_TYPES as SIMPLE_TYPES,
    Identity,
    is_foreign as is_foreign,
)


class Static:
    """A static value with its key for comparisons.

    Args:
      value: The value. If it is mutable, a private copy is kept.
      key: Its key, if known. The default, None, computes it.
    """

    __slots__ = ("_value", "content", "key")

    def __init__(self, value: Any, key: Any = None):
        self.key = static_key(value) if key is None else key
        self.content: ObjectContent | None = None
        """What the plain objects in the value hold; None if there are none, or if nobody has looked."""
        self._value = None if isinstance(self.key, Snapshot) and self.key.is_copy else value

    @property
    def value(self) -> Any:
        """The value; a new copy if it is mutable."""
        key = self.key
        return copy_deeply(key.copy) if isinstance(key, Snapshot) and key.is_copy else self._value

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Static) or self.key != other.key:
            return False
        return self.content is None or other.content is None or self.content.agrees(other.content)

    def __hash__(self) -> int:
        return hash(self.key)

    def __getstate__(self) -> Any:
        return None, {"_value": self._value, "key": self.key}

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        self.content = None  # it belongs to one process, and old pickles do not have it
        for name, x in state[1].items():
            setattr(self, name, x)

    def __repr__(self) -> str:
        key = self.key
        return repr(key.copy if isinstance(key, Snapshot) and key.is_copy else self._value)


class Snapshot:
    """A private copy of a mutable static value, compared by content.

    For a function that closes over a mutable value, it holds the function itself, and the content of its closure.

    Args:
      value: The value to copy.
      content: Its content. The default, None, computes it.

    Raises:
      StructureError: If the value cannot be copied, or if it differs from its copy.
    """

    __slots__ = ("content", "copy", "is_copy")

    def __init__(self, value: Any, content: Content | None = None):
        content = content or content_of(value)
        self.content = content.key
        self.is_copy = content.is_mutable
        self.copy = value
        if isinstance(content.key, Copied):
            self.copy = content.key.copy
        elif content.is_mutable:
            self.copy = _copy(value, content)

    def matches(self, value: Any, in_trace: bool = True) -> bool:
        """Return whether a value has the content of the copy; no other copy is made.

        Args:
          value: The value.
          in_trace: Whether JAX may be tracing. The default is True.
        """
        if isinstance(self.content, Copied):
            return self.content.matches(value, in_trace)
        return content_of(value).key == self.content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)


def static_key(value: Any, inside: bool = False) -> Any:
    """Return a hashable key that is equal only for interchangeable values.

    Args:
      value: Any Python object except arrays, Variables, Modules and containers that hold them.
      inside: Whether a function holds the value: what is mutable is then the same object, and need not be copied. The
        default is False.

    Returns:
      The key; a `Snapshot` if the value can change in place.

    Raises:
      StructureError: If the value is unhashable and cannot be copied and compared.
    """
    content = content_of(value, inside=inside)
    changes = content.is_mutable or content.closes_over_mutable
    if (
        type(value) is types.FunctionType
        and not content.has_users_function
        and (changes or content.is_opaque)
    ):
        return Identity(value)  # schedules of optax rebind their own closures when they first run
    return Snapshot(value, content) if changes else content.key


def _copy(value: Any, content: Content) -> Any:
    """Return a copy of a value with the same content."""
    try:
        copied = copy_deeply(value)
        same = content_of(copied).key == content.key
    except errors.StructureError:
        raise
    except Exception as error:
        raise cannot_copy(value, error) from error
    if not same:
        raise copy_differs(value)
    return copied


def is_fixed_function(function: types.FunctionType) -> bool:
    """Return whether the key of a function never changes.

    A user's function can get other code, defaults and attributes at any time, and its closure can be rebound.
    """
    return not content_of(function).has_users_function


def immutable_key(value: Any) -> Any:
    """Return the key of a deeply immutable value.

    Args:
      value: The value.

    Returns:
      The key.

    Raises:
      NotImmutableError: If a part of it could change.
    """
    return content_of(value, immutable=True).key
