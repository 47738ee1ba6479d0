"""The names of files and folders that users pass."""

from __future__ import annotations

import os
from typing import Any

from liftnn import errors
from liftnn._src.trees import an


def as_file_name(path: Any, call: str) -> str:
    """Return a path as text.

    Args:
      path: The path.
      call: The call that takes it, as text for the message.

    Returns:
      The text.

    Raises:
      ArgumentTypeError: If it is not a path.
    """
    try:
        return os.fsdecode(path)
    except TypeError as error:
        raise errors.ArgumentTypeError(
            f"The first argument must be a path, not {an(type(path))}.", f"Write `{call}`."
        ) from error
