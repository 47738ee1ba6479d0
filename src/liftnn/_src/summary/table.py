"""`Table`: what `tabulate` returns, as data, as text, by rich, and as HTML for notebooks."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from liftnn._src.summary import table_text
from liftnn._src.summary.columns import Column, TableLayout
from liftnn._src.summary.sizes import Size, bytes_text
from liftnn._src.trees import Path


class Row(NamedTuple):
    """One call of a module, or a module that is not called.

    Args:
      path: The attribute path of the module as text, with the name of the method unless it is `__call__`.
      type: The class of the module.
      inputs: The arguments, as texts of dtype and shape; empty if the module is not called.
      outputs: The results.
      params: The number of parameters of the module and its submodules; shared ones count at their first path.
      bytes: The bytes of these.
      shared: The number of its parameters that count at an earlier path, outside of the module.
      module_path: The path of the module.
      flops: The floating point operations of the call; None if they are not counted.
      grad_flops: The same of the call and its backward pass.
      has_unknown_loops: Whether the call has a loop of unknown length, such as `while_loop`; its body counts once.
    """

    path: str
    type: type
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: int
    bytes: int
    shared: int = 0
    module_path: Path = ()
    flops: float | None = None
    grad_flops: float | None = None
    has_unknown_loops: bool = False


@dataclasses.dataclass(frozen=True, repr=False)
class Table:
    """The table of a model. `print` shows it in colours in a terminal with rich installed, a notebook as HTML.

    Args:
      title: The class of the model.
      rows: A row for each call of a module, in order, and then for each module with Variables that is not called.
      totals: The elements and bytes of each type of Variable, shared ones once.
      has_calls: Whether the model was called, so that inputs and outputs are known.
      has_flops: Whether the floating point operations were counted.
      has_grad_flops: Whether those with the backward pass were counted.
      width: The width of the text. The default, None, is that of the terminal, and no limit outside of one.
    """

    title: str
    rows: Sequence[Row]
    totals: Mapping[str, Size]
    has_calls: bool = True
    has_flops: bool = False
    has_grad_flops: bool = False
    width: int | None = None

    def columns(self) -> list[Column]:
        """Return the columns that are shown, with the totals in the last rows."""
        rows, totals = self.rows, self.totals
        ends = [[""] for _ in totals]
        columns = [
            Column("path", [*([row.path] for row in rows), *ends]),
            Column("layer", [*([row.type.__name__] for row in rows), *([name] for name in totals)]),
        ]
        if self.has_calls:
            inputs = [row.inputs or (("-",) if row.outputs else ("not called",)) for row in rows]
            columns.append(Column("inputs", [*inputs, *ends]))
            columns.append(Column("outputs", [*(row.outputs for row in rows), *ends]))
        counts = [[f"{row.params:,}", *([f"+{row.shared:,} shared"] if row.shared else [])] for row in rows]
        columns.append(Column("params", [*counts, *([f"{x.elements:,}"] for x in totals.values())], True))
        sizes = [[bytes_text(x.bytes)] for x in (*rows, *totals.values())]
        columns.append(Column("bytes", sizes, True))
        for is_shown, name, values in (
            (self.has_flops, "FLOPs", [row.flops for row in rows]),
            (self.has_grad_flops, "with gradient", [row.grad_flops for row in rows]),
        ):
            if is_shown:
                counts = [_count(x, row) for x, row in zip(values, rows, strict=True)]
                columns.append(Column(name, [*counts, *ends], True))
        return columns

    def _layout(self) -> TableLayout:
        return TableLayout(self.title, self.columns(), len(self.rows), self.width)

    def __str__(self) -> str:
        if importlib.util.find_spec("rich") is None:
            return table_text.plain_text(self._layout())
        return table_text.rich_text(self._layout(), is_terminal=sys.stdout.isatty())

    __repr__ = __str__

    def __rich__(self) -> Any:
        return table_text.rich_table(self._layout())

    def _repr_html_(self) -> str:
        return table_text.html_table(self._layout())


def _count(x: float | None, row: Row) -> list[str]:
    """Return the lines of a number of operations."""
    if x is None:
        return [""]
    return [f"{x:,.0f}", *(["a loop counted once"] if row.has_unknown_loops else [])]
