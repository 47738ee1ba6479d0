"""Hook of mkdocs: the Mermaid drawings of `liftnn.draw` as SVG, so that no page fetches the script of Mermaid.

It knows what `draw` writes: boxes and arrows. Solid arrows lead to what is reached first, so they make trees; a box is
above those that it leads to. Dashed arrows are curves between the same boxes.
"""

from __future__ import annotations

import dataclasses
import html
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig

BOX = re.compile(r' *(\w+)(?:\["<b>(.*?)</b>(.*)"\]|\("(.*)"\))')
ARROW = re.compile(r' *(\w+) (-->|-\.->)\|"(.*)"\| (\w+)')
LETTER, LINE, SPACE = 6.7, 16.0, 18.0
"""The width of a letter, the height of a line, and the space between boxes, in pixels."""
BETWEEN = 76.0
"""The height between two rows of boxes, where the names of arrows are."""
FONT = "font-family: var(--md-code-font-family, monospace); font-size: 11px"
OUTLINE = "paint-order: stroke; stroke: var(--md-default-bg-color, white); stroke-width: 5px"
"""A name covers the arrow that it is on."""


@dataclasses.dataclass
class Box:
    """A box, with the position of the middle of its upper edge.

    Args:
      title: The first line.
      lines: The further ones.
      rounded: Whether its corners are round.
    """

    title: str
    lines: list[str]
    rounded: bool
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        """The width in pixels."""
        return max(len(text) for text in [self.title, *self.lines]) * LETTER + 16

    @property
    def height(self) -> float:
        """The height in pixels."""
        return (1 + len(self.lines)) * LINE + 14


@dataclasses.dataclass(frozen=True)
class Arrow:
    """An arrow between two boxes.

    Args:
      source: The name of the box where it starts.
      target: The name of the box that it leads to.
      name: Its text.
      dashed: Whether it is dashed.
    """

    source: str
    target: str
    name: str
    dashed: bool


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let blocks of Mermaid become SVG."""
    fence = {"name": "mermaid", "class": "drawing", "format": draw_fence}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def draw_fence(source: str, *_: Any, **__: Any) -> str:
    """Return a block of Mermaid as HTML, for superfences."""
    return f'<div class="drawing" style="overflow-x: auto">{svg_of(source)}</div>'


def svg_of(source: str) -> str:
    """Return a drawing as SVG, in the colors of the page.

    Args:
      source: The text of a flowchart from the top down, as `liftnn.draw` writes it.

    Returns:
      The SVG.

    Raises:
      ValueError: If a line is neither a box nor an arrow.
    """
    boxes, arrows = parse(source)
    width, height = place(boxes, arrows)
    shapes = [*map(box_text, boxes.values())]
    for arrow in arrows:
        line, label = arrow_text(arrow, boxes)
        shapes = [line, *shapes, label]  # names are on top, lines below
        width = max(width, max(x for x, _ in curve(arrow, boxes)) + len(arrow.name) * LETTER / 2)
    marker = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="The drawing of the text above" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" style="{FONT}">'
        f"{marker}{''.join(shapes)}</svg>"
    )


def parse(source: str) -> tuple[dict[str, Box], list[Arrow]]:
    """Return the boxes by name, and the arrows, of a flowchart."""
    boxes: dict[str, Box] = {}
    arrows: list[Arrow] = []
    first, *lines = source.strip().splitlines()
    if first != "flowchart TD":
        raise ValueError(f"{first!r} is not a flowchart from the top down")
    for line in lines:
        if arrow := ARROW.fullmatch(line):
            source_name, shaft, name, target = arrow.groups()
            arrows.append(Arrow(source_name, target, html.unescape(name), shaft != "-->"))
        elif box := BOX.fullmatch(line):
            name, title, rest, variable = box.groups()
            texts = [html.unescape(text) for text in (rest or "").split("<br>") if text]
            boxes[name] = Box(html.unescape(title or variable), texts, title is None)
        else:
            raise ValueError(f"{line!r} is neither a box nor an arrow of liftnn.draw")
    return boxes, arrows


def place(boxes: dict[str, Box], arrows: list[Arrow]) -> tuple[float, float]:
    """Place the boxes as trees: a box is above the middle of those that it leads to.

    Returns:
      The width and the height of the drawing.
    """
    below: dict[str, list[Arrow]] = {name: [] for name in boxes}
    for arrow in arrows:
        if not arrow.dashed:
            below[arrow.source].append(arrow)
    reached = {arrow.target for arrow in arrows if not arrow.dashed}
    rows: dict[int, float] = {}

    def spread(name: str, depth: int, left: float, label: str = "") -> float:
        """Place a box and all below it, from the left; return the right end."""
        box = boxes[name]
        rows[depth] = max(rows.get(depth, 0.0), box.height)
        wanted = max(box.width, len(label) * LETTER)
        right = left
        for arrow in below[name]:
            right = spread(arrow.target, depth + 1, right, arrow.name) + SPACE
        right = max(right - SPACE, left + wanted)
        children = [boxes[arrow.target].x for arrow in below[name]]
        box.x = max((children[0] + children[-1]) / 2 if children else 0.0, left + wanted / 2)
        box.y = depth
        return max(right, box.x + wanted / 2)

    right = 0.0
    for name in boxes:
        if name not in reached:
            right = spread(name, 0, right + 2.0) + SPACE
    tops = {depth: sum(rows[d] + BETWEEN for d in range(depth)) + 2.0 for depth in rows}
    for box in boxes.values():
        box.y = tops[int(box.y)]
    return right, max(tops[depth] + rows[depth] for depth in rows) + 2.0


def curve(arrow: Arrow, boxes: dict[str, Box]) -> list[tuple[float, float]]:
    """Return where an arrow starts, what it bends to, and where it ends."""
    source, target = boxes[arrow.source], boxes[arrow.target]
    if source is target:
        right, y = source.x + source.width / 2, source.y
        return [(right, y + source.height * 0.75), (right + BETWEEN, y), (right + 2, y + source.height * 0.4)]
    start, end = [source.x, source.y + source.height], [target.x, target.y - 2]
    if target.y == source.y:
        return [
            (source.x, source.y),
            ((source.x + target.x) / 2, source.y - BETWEEN),
            (target.x, target.y - 2),
        ]
    if target.y < source.y:
        start[1], end[1] = source.y, target.y + target.height + 2
    bend = (40.0 if end[0] >= start[0] else -40.0) * arrow.dashed
    return [
        (start[0], start[1]),
        ((start[0] + end[0]) / 2 + bend, sum((start[1], end[1])) / 2),
        (end[0], end[1]),
    ]


def arrow_text(arrow: Arrow, boxes: dict[str, Box]) -> tuple[str, str]:
    """Return an arrow and its name as SVG."""
    points = curve(arrow, boxes)
    first, control, last = (f"{x:.0f} {y:.0f}" for x, y in points)
    dashes = ' stroke-dasharray="4 4"' if arrow.dashed else ""
    line = f'<path d="M{first}Q{control} {last}" fill="none" stroke="currentColor"{dashes} marker-end="url(#tip)"/>'
    t = 0.35 if arrow.dashed else 0.65  # the names of two arrows between the same boxes are apart
    x, y = ((1 - t) ** 2 * p + 2 * t * (1 - t) * q + t**2 * r for p, q, r in zip(*points, strict=True))
    return line, text_at(x, y + 4, arrow.name, f' style="{OUTLINE}"')


def box_text(box: Box) -> str:
    """Return a box as SVG."""
    left, middle = box.x - box.width / 2, box.y + LINE + 2
    shape = (
        f'<rect x="{left:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" '
        f'rx="{12 if box.rounded else 3}" fill="var(--md-code-bg-color, whitesmoke)" stroke="currentColor"/>'
    )
    bold = "" if box.rounded else ' font-weight="bold"'
    lines = [text_at(box.x, middle + LINE * i, text) for i, text in enumerate(box.lines, 1)]
    return "".join([shape, text_at(box.x, middle, box.title, bold), *lines])


def text_at(x: float, y: float, text: str, attributes: str = "") -> str:
    """Return a line of text, with its middle at a position, as SVG."""
    position = f'x="{x:.0f}" y="{y:.0f}" text-anchor="middle"'
    return f'<text {position} fill="currentColor"{attributes}>{html.escape(text)}</text>'
