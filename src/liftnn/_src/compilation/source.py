"""The source text of generated functions, and the objects to which it refers by name."""

from __future__ import annotations

import builtins
import functools
import itertools
import os
import types
from collections.abc import Callable, Mapping, Sequence
from sys import getrefcount
from typing import Any, Generic, Protocol, TypeVar

import jax

from liftnn._src.captures.guards import Guards, referent_of
from liftnn._src.compilation.dependencies import Attribute, Reader
from liftnn._src.compilation.patrol import Beat
from liftnn._src.compilation.patterns import (
    Patterns,
    has_structure,
    same_static,
)
from liftnn._src.compilation.write_back import Writer, write
from liftnn._src.graph.attributes import attributes_of
from liftnn._src.graph.checks import ABSENT, ATOMS, Check, size_of
from liftnn._src.lifting.offers import FAST, FastOffer, is_rejection
from liftnn._src.trees import are_distinct
from liftnn._src.variables.storage import Storage
from liftnn._src.variables.watch import Watch

MISS: Any = object()
"""Returned by a fast path for a call that it cannot make; the call then takes the slow path."""

MOST = 128
"""The maximum number of elements in straight-line code; beyond that, the generated code uses loops."""


class Checked(Protocol):
    """The attributes of a fast path that are checked before its call, and the offer of the call."""

    offer: FastOffer
    patterns: Patterns
    guards: Guards
    varying: list[Attribute]
    checks: list[Check]
    watch: Watch


class Remembered(Checked, Protocol):
    """The attributes of a fast path from which code is generated; see `fast_path.py`."""

    writer: Writer
    readers: list[Reader]
    rounds: list[list[Beat]]
    array_types: list[type | None]
    placement: Sequence[Any]
    report: Callable[[], Any]


Path = TypeVar("Path", bound=Checked)


class Source(Generic[Path]):
    """The lines of a function, and the objects to which they refer by name.

    Args:
      path: The fast path.
    """

    def __init__(self, path: Path):
        self.path = path
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {FAST: path.offer}
        self._names: dict[int, str] = {}

    def add(self, *lines: str) -> None:
        """Add lines."""
        self.lines += lines

    def name(self, x: Any) -> str:
        """Return the name of a constant."""
        found = self._names.get(id(x))
        if found is None:
            found = self._names[id(x)] = f"k{len(self.constants)}"
            self.constants[found] = x
        return found

    def miss_if(self, condition: str) -> None:
        """Add a check."""
        self.add(f"if {condition}: return MISS")


def build(parameters: str, lines: Sequence[str], constants: Mapping[str, Any]) -> types.FunctionType:
    """Compile a function.

    The constants are globals of the function, and each function has its own dictionary of globals: a free variable
    would be copied in each call. Each function also has its own code object, since the interpreter specializes the code
    for one dictionary.

    Args:
      parameters: The parameters of the function.
      lines: The lines of its body.
      constants: The objects to which the lines refer by name, in addition to `_GLOBALS`.

    Returns:
      The function.
    """
    body = "\n".join(f"  {line}" for line in lines)
    code = compile_text(f"def call({parameters}):\n{body}\n")
    return types.FunctionType(code.replace(), {**_GLOBALS, **constants})


def end(function: types.FunctionType) -> None:
    """Let a generated function miss each call from now on; the traceback of an error may keep it alive."""
    function.__code__ = compile_text("def call(args, kwargs):\n  return MISS\n")


@functools.lru_cache(maxsize=256)
def compile_text(text: str) -> types.CodeType:
    """Compile the function that a text defines, and return its code."""
    code = compile(text, os.path.join(os.path.dirname(__file__), "<fast path>"), "exec")
    return next(x for x in code.co_consts if isinstance(x, types.CodeType))


def _count_held_once() -> int:
    """Return the reference count of a value held by one storage and one local variable: 3, or less in later Pythons.

    It is read from the storage: a later Python may count no reference for a local variable that is an argument of a
    call, depending on the code around it. A debugger may hold one more reference now, so the result is limited to 3.
    """
    storage = Storage()
    storage.value = object()
    value = storage.value
    count = getrefcount(storage.value)
    assert value is storage.value
    return min(3, count)


HELD_ONCE = _count_held_once()
"""An array with at most this reference count is in no other Variable or argument, so its buffer can be donated."""


_GLOBALS = {
    "__name__": __name__,
    "__builtins__": builtins,  # C code that imports a module looks it up in the globals of the calling function
    "id": id,
    "len": len,
    "type": type,
    "MISS": MISS,
    "size_of": size_of,
    "referent_of": referent_of,
    "attributes_of": attributes_of,
    "ABSENT": ABSENT,
    "ATOMS": ATOMS,
    "is_rejection": is_rejection,
    "HELD_ONCE": HELD_ONCE,
    "has_structure": has_structure,
    "same_static": same_static,
    "are_distinct": are_distinct,
    "getrefcount": getrefcount,
    "leaves": jax.tree.leaves,
    "starmap": itertools.starmap,
    "write": write,
}
"""The globals of every generated function."""
