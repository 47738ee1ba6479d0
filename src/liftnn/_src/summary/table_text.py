"""The forms of a `Table`: plain text, the same by rich with colours and the width of the terminal, and HTML."""

from __future__ import annotations

import html
import importlib
import io
import shutil
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

from liftnn._src.summary.columns import Column, TableLayout

_STYLES = {"path": "cyan", "layer": "bold", "inputs": "green", "outputs": "green"}
_UNLIMITED = 10_000


def plain_text(table: TableLayout) -> str:
    """Return a table as text, laid out as rich does it."""
    columns = table.columns
    widths = [max(len(line) for cell in ([x.name], *x.cells) for line in (*cell, "")) for x in columns]
    width = sum(widths) + 3 * len(widths) + 1
    rule = f" {'─' * (width - 2)} "
    split = table.rows

    def lines(row: Iterable[Iterable[str]]) -> list[str]:
        texts = zip_longest(*row, fillvalue="")
        return [
            "  ".join(
                [""]
                + [
                    f"{text.rjust(w) if x.is_number else text.ljust(w)} "
                    for text, w, x in zip(line, widths, columns, strict=True)
                ]
            )
            for line in texts
        ]

    rows = [lines(row) for row in zip(*[x.cells for x in columns], strict=True)]
    body = [line for row in rows[:split] for line in row]
    ends = [rule, *[line for row in rows[split:] for line in row]] if rows[split:] else []
    names = lines([[x.name] for x in columns])
    title = " " * ((width - len(table.title)) // 2) + table.title
    text = [title, rule, *names, rule, *body, *ends, rule]
    return "\n".join(line.rstrip() for line in text)


def rich_text(table: TableLayout, *, is_terminal: bool) -> str:
    """Return a table as rich prints it.

    Args:
      table: The table.
      is_terminal: Whether to use the colours and the width of the terminal.
    """
    console_type: Any = importlib.import_module("rich.console").Console
    width = table.width or (shutil.get_terminal_size().columns if is_terminal else _UNLIMITED)
    file = io.StringIO()
    # In Jupyter, without `force_jupyter=False`, it would show the table itself and write nothing.
    console = console_type(
        file=file, width=width, force_terminal=is_terminal, force_jupyter=False, highlight=False
    )
    console.print(rich_table(table))
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip("\n").split("\n"))


def rich_table(table: TableLayout) -> Any:
    """Return a table as an object of rich."""
    rich: Any = importlib.import_module("rich.table")
    text: Any = importlib.import_module("rich.text").Text
    box: Any = importlib.import_module("rich.box")
    columns = table.columns
    result = rich.Table(title=text(table.title, style="bold"), box=box.HORIZONTALS, header_style="dim")
    for x in columns:
        style = _STYLES.get(x.name)
        result.add_column(x.name, justify="right" if x.is_number else "left", style=style, overflow="fold")
    for number, row in enumerate(zip(*[x.cells for x in columns], strict=True)):
        if number == table.rows:
            result.add_section()
        result.add_row(*[text("\n".join(cell)) for cell in row])
    return result


_CELL = "padding: 0.15em 0.8em; border: none; white-space: nowrap; vertical-align: top;"
_RULE = "border-top: 1px solid color-mix(in srgb, currentColor 35%, transparent);"


def html_table(table: TableLayout) -> str:
    """Return a table as HTML in the colours of the page around it, so that it fits dark and light notebooks."""
    columns = table.columns
    split = table.rows
    head = "".join(
        f'<th style="{_CELL} {_align(x)} font-weight: 600; opacity: 0.7">{x.name}</th>' for x in columns
    )
    rows = [
        f'<tr style="background: none; {_RULE if number in (0, split) else ""}">{_html_row(columns, row)}</tr>'
        for number, row in enumerate(zip(*[x.cells for x in columns], strict=True))
    ]
    return (
        '<div style="overflow-x: auto"><table style="border-collapse: collapse; font-family: monospace; '
        'font-size: 0.9em; color: inherit; background: none">'
        f'<caption style="font-weight: 600; text-align: left; padding: 0.3em 0.8em; color: inherit">'
        f"{html.escape(table.title)}</caption>"
        f'<thead><tr style="background: none">{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _align(x: Column) -> str:
    return f"text-align: {'right' if x.is_number else 'left'};"


def _html_row(columns: Sequence[Column], row: Iterable[Iterable[str]]) -> str:
    return "".join(
        f'<td style="{_CELL} {_align(x)}">{"<br>".join(map(html.escape, cell))}</td>'
        for x, cell in zip(columns, row, strict=True)
    )
