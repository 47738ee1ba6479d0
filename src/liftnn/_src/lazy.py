"""Lazy imports of what stands in a higher layer, such as the text of an error: a lower layer asks for it by its role.

`liftnn/_roles.py`, at the top, says which file has each role, so no layer imports one above it.
"""

from __future__ import annotations

import importlib
from typing import Any

_files: dict[str, str] = {}


def set_files(**files: str) -> None:
    """Say where the roles are.

    Args:
      **files: The full name of a Python module by role.
    """
    _files.update(files)


def load(role: str) -> Any:
    """Return the Python module that has a role; it is imported at the first call."""
    return importlib.import_module(_files[role])
