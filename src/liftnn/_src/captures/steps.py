"""The steps of the search for captured modules: each child of an object, and the guard that detects another child."""

from __future__ import annotations

import types
from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

from liftnn._src.captures.guards import Guard
from liftnn._src.graph.checks import Elements

FRESH = "\0"
"""First character of a label that starts a new name, instead of continuing the name of the parent."""


def name_from(labels: Iterable[str]) -> str:
    """Return the name of an object in the code.

    Args:
      labels: The labels of the steps to it, the last one first.

    Returns:
      The name, such as `trainer.models[0]`.
    """
    name = ""
    for label in labels:
        name = label + name
        if label.startswith(FRESH):
            return name.removeprefix(FRESH)
    return name.lstrip(".")


class Step(NamedTuple):
    """One step of the search.

    Args:
      child: The object that the step leads to.
      label: The suffix that the step adds to the name of the parent, such as `.layers`.
      key: Identifies the step among those of the parent, for the shape.
      guard: Detects whether the parent refers to another object.
      always: Whether to guard the step even if it leads to no module.
    """

    child: Any
    label: str = ""
    key: Hashable = None
    guard: Guard | None = None
    always: bool = False

    @property
    def is_attribute(self) -> bool:
        """Whether it leads to the value of an attribute, not to code."""
        return self.always and self.label.startswith(".")

    @property
    def is_held(self) -> bool:
        """Whether the parent holds the child: it is not what its code names, nor its class."""
        named = isinstance(self.key, tuple) and len(self.key) == 2 and self.key[0] in ("global", "import")
        return not named and type(self.child) is not ClassOf and self.key != "__class__"


class Expansion(NamedTuple):
    """The steps from one object to others.

    Args:
      tag: The kind of the object, for the shape.
      steps: The steps.
      guards: Guards that belong to no step.
      elements: The guard of a container as a whole.
      always: Whether to use `elements` even if the container leads to no module.
      by_name: Whether only attributes that the code names were followed.
      inherits: Whether the children are part of a cache key if the object is.
      quiet: Whether objects below are guarded only where they lead to a module.
      whole: The object of which code under a transform must not change anything if an attribute or element of it holds
        a module; None, the default, if there is none.
      size: The number of elements of a long container, for the shape.
      hidden: The names of modules of the object's class that its attributes hide, for the shape.
    """

    tag: str
    steps: list[Step]
    guards: tuple[Guard, ...] = ()
    elements: Elements | None = None
    always: bool = False
    by_name: bool = False
    inherits: bool = True
    quiet: bool = False
    whole: Any = None
    size: int | None = None
    hidden: tuple[str, ...] = ()


class ClassOf(NamedTuple):
    """The class of an object that the code has: its methods may run, but not those that create an object.

    Args:
      cls: The class.
    """

    cls: type


class GlobalsOf(NamedTuple):
    """A function that is a node of the graph: its closure is flattened already, only its globals are searched.

    Args:
      function: The function.
    """

    function: types.FunctionType
