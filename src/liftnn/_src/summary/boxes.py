"""The parts of a drawing, whatever the language: boxes and arrows."""

from __future__ import annotations

from typing import NamedTuple


class Box(NamedTuple):
    """A node of a drawing.

    Args:
      title: The class of the object, with the number of equal ones if there are several.
      lines: What it holds: Variables, arrays and settings.
      is_variable: Whether it is a Variable that is reached more than once.
    """

    title: str
    lines: tuple[str, ...]
    is_variable: bool = False


class Arrow(NamedTuple):
    """An arrow of a drawing.

    Args:
      source: The position of the box of the holder.
      target: The position of the box of what it holds.
      name: The attribute, with positions and keys in containers.
      is_reference: Whether the target was reached before: it is shared, or closes a cycle.
    """

    source: int
    target: int
    name: str
    is_reference: bool
