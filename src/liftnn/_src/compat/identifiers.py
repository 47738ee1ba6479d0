"""Unique identifiers, of which a copy is another one."""

from __future__ import annotations

import itertools

_numbers = itertools.count(1)


class UUID:
    """A hashable identifier that is equal to itself only; `copy` and `deepcopy` return a new one.

    Example:
      >>> import copy
      >>> from liftnn.compat.nnx import ids
      >>> one = ids.uuid()
      >>> one == one, one == ids.uuid(), one == copy.deepcopy(one)
      (True, False, False)
    """

    __slots__ = ("id",)

    def __init__(self) -> None:
        self.id = next(_numbers)

    def __copy__(self) -> UUID:
        return UUID()

    def __deepcopy__(self, memo: object) -> UUID:
        return UUID()

    def __repr__(self) -> str:
        return f"UUID({self.id})"


def uuid() -> UUID:
    """Return a new identifier.

    Returns:
      The identifier.

    Example:
      >>> from liftnn.compat.nnx import ids
      >>> ids.uuid() in {ids.uuid()}
      False
    """
    return UUID()
