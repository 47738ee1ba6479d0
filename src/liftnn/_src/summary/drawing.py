"""The object graph of a module as nodes and arrows: objects with what they hold, and an arrow for each attribute.

A module is one node however often it is reached. Its Variables are lines of its node; one that is reached more than
once has a node of its own. Lists and dicts are part of the names of arrows; equal neighbours in a list are one node.
"""

from __future__ import annotations

import dataclasses
import html
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

from liftnn import errors
from liftnn._src.graph.kinds import ARRAY_NODE, DICT, LIST, TUPLE, VARIABLE
from liftnn._src.printing import Verbatim
from liftnn._src.summary.boxes import Arrow, Box
from liftnn._src.summary.dot import dot_text
from liftnn._src.summary.mermaid import mermaid_text
from liftnn._src.summary.module_text import name_of, shown_entries, texts_of
from liftnn._src.summary.outline import OutlineEntry, check_has_modules, outline
from liftnn._src.summary.value_text import array_text, value_text, variable_text
from liftnn._src.trees import Path, format_path

LANGUAGES: dict[str, Callable[[list[Box], list[Arrow]], str]] = {"mermaid": mermaid_text, "dot": dot_text}
"""The languages of drawings, with the functions that write them."""


@dataclasses.dataclass(frozen=True, repr=False)
class Drawing:
    """A drawing of a module as text, which notebooks show as a picture.

    Args:
      text: The text.
      format: Its language: `mermaid`, or `dot`, that of Graphviz.
    """

    text: str
    format: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        bundle = {"text/plain": self.text}
        if self.format == "mermaid":
            bundle["text/vnd.mermaid"] = self.text
        elif shutil.which("dot") is not None:
            run = subprocess.run(["dot", "-Tsvg"], input=self.text, capture_output=True, text=True)
            bundle["text/html"] = run.stdout[run.stdout.find("<svg") :] or html.escape(run.stderr)
        return bundle


def make_drawing(tree: Any, format: str, depth: int | None) -> Drawing:
    """Return the drawing of a module; see `liftnn.draw`.

    Args:
      tree: The module.
      format: The language.
      depth: The largest number of objects around one that is drawn; None for any.

    Returns:
      The drawing.

    Raises:
      ArgumentError: If the language is not known.
      ArgumentTypeError: If `tree` is not a module and cannot hold one.
    """
    if format not in LANGUAGES:
        raise errors.ArgumentError(
            f"draw has no format {value_text(format)}.", f"Pass one of {', '.join(map(repr, LANGUAGES))}."
        )
    check_has_modules("draw", tree)
    painter = _Painter(outline(tree), depth)
    return Drawing(LANGUAGES[format](painter.boxes, painter.arrows), format)


class _Painter:
    """The boxes and arrows of an outline.

    Args:
      top: The entry of the root.
      depth: The largest number of objects around one that is drawn; None for any.
    """

    def __init__(self, top: OutlineEntry, depth: int | None):
        self.boxes: list[Box] = []
        self.arrows: list[Arrow] = []
        self._positions: dict[int, int] = {}
        """The box of each entry that has one, or that is drawn as another one."""
        self._same: dict[int, OutlineEntry] = {}
        """For each element of a list that is not drawn: the equal one that is."""
        self._texts = texts_of(top)
        self._shared = {id(entry.first) for entry in top.walk() if entry.first is not None}
        self._draw(top, depth)

    def _draw(self, top: OutlineEntry, depth: int | None) -> None:
        """Draw all boxes with their arrows, and then the arrows to boxes that were reached before."""
        references: list[tuple[int, OutlineEntry, Path]] = []
        todo = [(top, -1, (), 1, 0)]
        while todo:
            entry, holder, path, count, level = todo.pop()
            if entry.first is not None:
                references.append((holder, entry, path))
            elif holder >= 0 and _is_container(entry):
                todo += [
                    (
                        below,
                        holder,
                        (*path, below.key if n == 1 else Verbatim(f"{below.key}:{below.key + n}")),
                        n,
                        level,
                    )
                    for below, n in self._runs(entry)
                ][::-1]
            elif depth is None or level <= depth:
                position = self._add_box(entry, count)
                if holder >= 0:
                    self.arrows.append(Arrow(holder, position, format_path(path), False))
                below = entry.below if _is_container(entry) else shown_entries(entry)
                todo += [(x, position, (x.key,), 1, level + 1) for x in below if self._has_box(x)][::-1]
        for holder, entry, path in references:
            self.arrows.append(Arrow(holder, self._position(entry.first), format_path(path), True))

    def _add_box(self, entry: OutlineEntry, count: int) -> int:
        """Add the box of an object, and return its position."""
        position = self._positions[id(entry)] = len(self.boxes)
        title = f"{count} x " if count > 1 else ""
        if entry.kind is VARIABLE:
            self.boxes.append(Box(title + variable_text(entry.value), (), is_variable=True))
            return position
        lines = [] if _is_container(entry) else [x for x in shown_entries(entry) if not self._has_box(x)]
        self.boxes.append(Box(title + name_of(entry), tuple(map(_line, lines))))
        return position

    def _has_box(self, entry: OutlineEntry) -> bool:
        """Return whether an attribute is an arrow; others are lines of the box of the holder."""
        if entry.kind is VARIABLE:
            return entry.first is not None or id(entry) in self._shared
        return entry.state and entry.kind is not ARRAY_NODE

    def _runs(self, entry: OutlineEntry) -> list[tuple[OutlineEntry, int]]:
        """Return the elements of a container that are drawn, with counts: one for each run of equal ones."""
        runs: list[tuple[OutlineEntry, int]] = []
        for below in entry.below:
            if not below.state:
                continue
            text = self._texts.get(id(below))
            last = runs[-1][0] if runs else None
            is_equal = last is not None and text is not None and text == self._texts.get(id(last))
            if last is not None and is_equal and not isinstance(entry.value, dict):
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
                self._same[id(below)] = last
            else:
                runs.append((below, 1))
        return runs

    def _position(self, entry: OutlineEntry | None) -> int:
        """Return the position of the box of an object, or of the object that holds it if it has none."""
        while entry is not None and id(entry) not in self._positions:
            entry = self._same.get(id(entry), entry.above)
        return 0 if entry is None else self._positions[id(entry)]


def _is_container(entry: OutlineEntry) -> bool:
    """Return whether an entry is part of the names of arrows instead of a box."""
    return entry.kind in (LIST, DICT, TUPLE) and not hasattr(entry.value, "_fields")


def _line(entry: OutlineEntry) -> str:
    """Return an attribute as a line of a box."""
    if entry.kind is VARIABLE:
        return f"{entry.key}: {variable_text(entry.value)}"
    return (
        f"{entry.key}: {array_text(entry.value)}"
        if entry.kind is ARRAY_NODE
        else f"{entry.key}={value_text(entry.value)}"
    )
