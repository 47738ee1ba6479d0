"""Source text of generated functions, and the objects that it refers to by name."""

from __future__ import annotations

import functools
import os
import types
from collections.abc import Callable, Mapping, Sequence
from sys import getrefcount
from typing import Any, Generic, Protocol, TypeVar

import jax

from liftnn._src.captures.guards import Guards
from liftnn._src.compilation.dependencies import Attribute, Reader
from liftnn._src.compilation.patrol import Beat
from liftnn._src.compilation.patterns import (
    Patterns,
    same_static,
)
from liftnn._src.compilation.write_back import Writer, write
from liftnn._src.graph.attributes import attributes_of
from liftnn._src.graph.checks import ABSENT, ATOMS, Check, size_of
from liftnn._src.trees import are_distinct
from liftnn._src.variables import frames
from liftnn._src.variables.variable import Storage
from liftnn._src.variables.watch import Watch

MISS: Any = object()
"""What a fast path gives for a call that it cannot make."""

MOST = 128
"""How many elements are written out."""


class Checked(Protocol):
    """What a fast path checks before its call."""

    patterns: Patterns
    guards: Guards
    varying: list[Attribute]
    checks: list[Check]
    watch: Watch


class Remembered(Checked, Protocol):
    """What a fast path knows of its call; see `fast_path.py`."""

    writer: Writer
    readers: list[Reader]
    rounds: list[list[Beat]]
    array_type: Any
    report: Callable[[], Any]


Path = TypeVar("Path", bound=Checked)


class Source(Generic[Path]):
    """The lines of a function, and the objects that they refer to by name.

    Args:
      path: The fast path.
    """

    def __init__(self, path: Path):
        self.path = path
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self._names: dict[int, str] = {}

    def add(self, *lines: str) -> None:
        """Adds lines."""
        self.lines += lines

    def name(self, x: Any) -> str:
        """The name of a constant."""
        found = self._names.get(id(x))
        if found is None:
            found = self._names[id(x)] = f"k{len(self.constants)}"
            self.constants[found] = x
        return found

    def miss_if(self, condition: str) -> None:
        """Adds a check."""
        self.add(f"if {condition}: return MISS")


def build(parameters: str, lines: Sequence[str], constants: Mapping[str, Any]) -> Callable[..., Any]:
    """Compiles a function.

    What its lines refer to is global to the function, each function with a dictionary of its own: a free variable
    would be copied in each call. So it has a code object of its own too, since the interpreter adapts the code to the
    dictionary that it has met.

    Args:
      parameters: Its parameters.
      lines: Its lines.
      constants: What the lines refer to by name, beside `_GLOBALS`.

    Returns:
      The function.
    """
    body = "\n".join(f"  {line}" for line in lines)
    code = compile_text(f"def call({parameters}):\n{body}\n")
    return types.FunctionType(code.replace(), {**_GLOBALS, **constants})


@functools.lru_cache(maxsize=256)
def compile_text(text: str) -> types.CodeType:
    """The code of the function that a text defines."""
    code = compile(text, os.path.join(os.path.dirname(__file__), "<fast path>"), "exec")
    return next(x for x in code.co_consts if isinstance(x, types.CodeType))


def _count_held_once() -> int:
    """The count of references to a value that one storage and one variable hold: 3, or less in a later Python.

    A debugger that runs now may hold one more. So it is never more than 3.
    """
    made = Storage()
    made.value = object()
    value = made.value
    return min(3, getrefcount(value))


HELD_ONCE = _count_held_once()
"""An array with no more references is in no other Variable and no argument, so its buffer can be given away."""


_GLOBALS = {
    "__name__": __name__,
    "id": id,
    "len": len,
    "type": type,
    "MISS": MISS,
    "size_of": size_of,
    "attributes_of": attributes_of,
    "ABSENT": ABSENT,
    "ATOMS": ATOMS,
    "CHANGED": (LookupError, AttributeError, ValueError, RuntimeError),
    "RetraceNeeded": frames.RetraceNeeded,
    "HELD_ONCE": HELD_ONCE,
    "same_static": same_static,
    "are_distinct": are_distinct,
    "getrefcount": getrefcount,
    "leaves": jax.tree.leaves,
    "write": write,
}
"""What generated code refers to in every function; `CHANGED` is what a check raises where something has changed."""
