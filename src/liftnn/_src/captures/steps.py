"""The steps of the search for captured modules: what stands where, and what notices another thing there."""

from __future__ import annotations

import types
from collections.abc import Hashable
from typing import Any, NamedTuple

from liftnn._src.captures.guards import Guard
from liftnn._src.graph.checks import Elements

FRESH = "\0"
"""Starts the label of what has a name of its own, that does not go on from the name of what led to it."""


class Step(NamedTuple):
    """One step of the search.

    Args:
      child: What stands there.
      label: How its name goes on from that of the object that leads to it.
      key: What tells the step from others of the object, for the shape.
      guard: Notices another thing there.
      always: Whether to guard the step even if it leads to no module.
    """

    child: Any
    label: str = ""
    key: Hashable = None
    guard: Guard | None = None
    always: bool = False


class Expansion(NamedTuple):
    """What one object leads to.

    Args:
      tag: Tells kinds of objects apart in the shape.
      steps: The steps.
      guards: Guards that belong to no step.
      elements: The guard of a container as a whole.
      always: Whether to guard it even if it leads to no module.
      by_name: Whether only attributes were followed that the code names.
      inherits: Whether what it leads to is part of a cache key, if it is.
      quiet: Whether what it leads to is guarded only where it leads to a module.
    """

    tag: Hashable
    steps: list[Step]
    guards: tuple[Guard, ...] = ()
    elements: Elements | None = None
    always: bool = False
    by_name: bool = False
    inherits: bool = True
    quiet: bool = False


class GlobalsOf(NamedTuple):
    """A function that is a node of the graph, so that of what it captures only its globals are still to be found.

    Args:
      function: The function.
    """

    function: types.FunctionType
