"""Tables of which only the first rows run in `make test`; the others are thorough, for `.ci/run`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def quick(rows: Iterable[Any], most: int = 1) -> list[Any]:
    """Return the rows of a table, with all but the first ones marked as thorough.

    Args:
      rows: The values of one parameter.
      most: The number of rows that always run.

    Returns:
      The rows.
    """
    return [row if i < most else pytest.param(row, marks=pytest.mark.thorough) for i, row in enumerate(rows)]
