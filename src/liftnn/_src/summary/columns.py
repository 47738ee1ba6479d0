"""The columns of a table as texts: `Table` makes them, and each of its forms shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Column(NamedTuple):
    """A column of texts.

    Args:
      name: The header.
      cells: The lines of the cell of each row.
      is_number: Whether the cells are aligned to the right.
    """

    name: str
    cells: Sequence[Sequence[str]]
    is_number: bool = False


class TableLayout(NamedTuple):
    """The columns of a table, and what stands around them.

    Args:
      title: What stands above them.
      columns: The columns.
      rows: The number of rows before those with the totals.
      width: The width of the text; None if it is not limited.
    """

    title: str
    columns: Sequence[Column]
    rows: int
    width: int | None
