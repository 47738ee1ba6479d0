"""What takes the place of an argument that a call leaves out: the first value that is given."""

from __future__ import annotations

from typing import TypeVar

from liftnn import errors
from liftnn._src.tracebacks import boundary

A = TypeVar("A")


@boundary
def first_from(*args: A | None, error_msg: str) -> A:
    """Return the first value that is not None.

    Args:
      *args: The values.
      error_msg: The message of the error.

    Returns:
      The value.

    Raises:
      ArgumentError: If all are None.

    Example:
      >>> from liftnn.compat import nnx
      >>> nnx.module.first_from(None, 2, 3, error_msg="Nothing is given.")
      2
    """
    for x in args:
        if x is not None:
            return x
    raise errors.ArgumentError(error_msg, "Give one of them a value that is not None.")
