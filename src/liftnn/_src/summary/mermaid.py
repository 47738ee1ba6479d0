"""Drawings as text of Mermaid, which GitHub, JupyterLab and mkdocs show as pictures."""

from __future__ import annotations

from collections.abc import Sequence

from liftnn._src.summary.boxes import Arrow, Box

_ESCAPES = {"#": "&num;", '"': "&quot;", "<": "&lt;", ">": "&gt;", "&": "&amp;", "`": "&grave;"}
"""What Mermaid would take as HTML, Markdown, an entity or the end of a text, by the names of HTML.

Mermaid's own form, `#lt;`, is shown as it is in labels that wrap.
"""


def mermaid_text(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> str:
    """Return a drawing as a flowchart: dashed arrows lead to what was reached before, rounded boxes are Variables."""
    lines = ["flowchart TD"]
    for number, box in enumerate(boxes):
        text = "<br>".join([f"<b>{_escape(box.title)}</b>", *map(_escape, box.lines)])
        lines.append(f'  n{number}("{_escape(box.title)}")' if box.is_variable else f'  n{number}["{text}"]')
    for arrow in arrows:
        line = "-.->" if arrow.is_reference else "-->"
        lines.append(f'  n{arrow.source} {line}|"{_escape(arrow.name)}"| n{arrow.target}')
    return "\n".join(lines)


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(c, c) for c in text)
