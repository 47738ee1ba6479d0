"""Drawings as text of DOT, the language of Graphviz."""

from __future__ import annotations

import html
from collections.abc import Sequence

from liftnn._src.summary.boxes import Arrow, Box

_DOT_HEAD = """digraph {
  bgcolor="transparent";
  node [shape=box, style="filled", color="#5c6bc0", fillcolor="#eef0fb", fontcolor="#202124", fontname="Helvetica", fontsize=11];
  edge [color="#808080", fontcolor="#808080", fontname="Helvetica", fontsize=10];"""  # noqa: E501


def dot_text(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> str:
    """Return a drawing as a directed graph: dashed arrows for what was reached before, rounded boxes for Variables."""
    lines = [_DOT_HEAD]
    for number, box in enumerate(boxes):
        rounded = ', style="filled,rounded", fillcolor="#fff7e0", color="#c9a227"' if box.is_variable else ""
        lines.append(f"  n{number} [label=<{_label(box)}>{rounded}];")
    for arrow in arrows:
        dashed = ", style=dashed, constraint=false" if arrow.is_reference else ""
        lines.append(f"  n{arrow.source} -> n{arrow.target} [label=<{_text(' ' + arrow.name)}>{dashed}];")
    return "\n".join([*lines, "}"])


def _label(box: Box) -> str:
    """Return the text of a box in the HTML of Graphviz."""
    if box.is_variable:
        return _text(box.title)
    lines = "".join(f'{_text(line)}<br align="left"/>' for line in box.lines)
    return f"<b>{_text(box.title)}</b>{'<br/>' if lines else ''}{lines}"


def _text(text: str) -> str:
    return html.escape(text)
