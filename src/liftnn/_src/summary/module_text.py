"""The repr of a module: its Variables by shape, settings that are not defaults, and submodules, with sharing.

A text of one object is on one line if it fits, else it is a block with one entry per line. The blocks are built from
the innermost outwards, since the text of an entry must be known to collapse equal neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import threading
from collections.abc import Iterable
from typing import Any

from liftnn._src.graph.attributes import Attributed
from liftnn._src.graph.kinds import (
    ARRAY_NODE,
    BUILTIN_METHOD,
    DATACLASS,
    DICT,
    FROZEN_DATACLASS,
    FUNCTION,
    LIST,
    METHOD,
    MODULE,
    PYTREE,
    TRANSFORMED,
    TUPLE,
    VARIABLE,
)
from liftnn._src.printing import MAX_DEPTH, indent
from liftnn._src.summary.outline import OutlineEntry, outline
from liftnn._src.summary.settings import is_setting
from liftnn._src.summary.sizes import sizes_by_type
from liftnn._src.summary.value_text import array_text, common_status, value_text, variable_text
from liftnn._src.trees import format_path
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

WIDTH = 100
"""A text that is longer is divided into lines."""
_MOST_ENTRIES = 100
"""The maximum number of entries of a container that are shown."""


def module_text(module: Any) -> str:
    """Return the repr of a module.

    Args:
      module: The module, of any trace, perhaps abstract, deleted or not complete.

    Returns:
      The text, such as `Linear(kernel: Param f32[4,8], bias: Param f32[8])  40 params, 160 B`.
    """
    top = outline(module)
    variables = [entry.value for entry in top.walk() if entry.kind is VARIABLE and entry.first is None]
    common = common_status(variables)
    text = texts_of(top, common)[id(top)]
    total = ", ".join(filter(None, [sizes_text(variables), common]))
    return f"{text}  {total}" if total else text


def sizes_text(variables: Iterable[Variable[Any]]) -> str:
    """Return the sizes of Variables by type, parameters first; nothing if there are none."""
    return "; ".join(
        size.text(" params") if name == "Param" else f"{name} {size.text()}"
        for name, size in sizes_by_type(variables).items()
    )


def texts_of(top: OutlineEntry, common: str = "") -> dict[int, str]:
    """Return the text of each entry of an outline, by id.

    Args:
      top: The entry of the root.
      common: What all arrays are, such as `traced`, which is not repeated. The default, an empty text, is nothing.

    Returns:
      The texts, without the keys of the entries.
    """
    texts: dict[int, str] = {}
    order: list[tuple[OutlineEntry, int]] = []
    todo = [(top, 0)]
    while todo:
        entry, depth = todo.pop()
        order.append((entry, depth))
        if depth <= MAX_DEPTH and not _is_opaque(entry):
            todo += [(below, depth + 1) for below in entry.below]
    for entry, depth in reversed(order):
        is_cut = depth > MAX_DEPTH and entry.below
        texts[id(entry)] = f"{type(entry.value).__name__}(...)" if is_cut else _text(entry, texts, common)
    return texts


def _text(entry: OutlineEntry, texts: dict[int, str], common: str) -> str:
    """Return the text of an entry from those of the entries below it."""
    x, kind = entry.value, entry.kind
    if not entry.state and entry.above is not None:
        return value_text(x)
    if entry.first is not None:
        return _reference(entry, entry.first)
    if kind is VARIABLE:
        return variable_text(x, common)
    if kind is ARRAY_NODE:
        return array_text(x)
    if _is_opaque(entry):
        return _own_text(x)
    if kind is DICT or kind is LIST or (kind is TUPLE and not hasattr(x, "_fields")) or _is_sequence(x, kind):
        return _container_text(entry, texts)
    return _block(f"{name_of(entry)}(", (_named(below, texts) for below in shown_entries(entry)), ")")


def name_of(entry: OutlineEntry) -> str:
    """Return the class of an object, or the name of a function."""
    return (
        str(entry.value.__name__)
        if entry.kind in (FUNCTION, METHOD, BUILTIN_METHOD)
        else repr(entry.value.__recipe__)
        if entry.kind is TRANSFORMED
        else type(entry.value).__name__
    )


def _is_opaque(entry: OutlineEntry) -> bool:
    """Return whether an entry is a module inside another one that shows itself."""
    return entry.kind is MODULE and entry.above is not None and _has_own_repr(type(entry.value))


def _is_sequence(x: Any, kind: Any) -> bool:
    """Return whether a pytree is a mapping or a sequence, such as a State."""
    return kind is PYTREE and isinstance(x, (dict, list, tuple)) and not hasattr(x, "_fields")


def _reference(entry: OutlineEntry, first: OutlineEntry) -> str:
    """Return the text of a later occurrence of an object: its class, and the path of the first."""
    relation = "cycle to" if entry.is_inside(first) else "shared with"
    return f"{type(entry.value).__name__} ({relation} {format_path(first.path)})"


def shown_entries(entry: OutlineEntry) -> Iterable[OutlineEntry]:
    """Return the entries of a module, dataclass or other object that are shown: state, then settings."""
    if entry.kind not in (MODULE, DATACLASS, FROZEN_DATACLASS):
        return entry.below
    state = [below for below in entry.below if below.state]
    return [*state, *(below for below in entry.below if not below.state and is_setting(below, entry))]


def _named(entry: OutlineEntry, texts: dict[int, str]) -> str:
    """Return the text of an attribute with its name."""
    return f"{entry.key}{': ' if entry.state else '='}{texts[id(entry)]}"


def _container_text(entry: OutlineEntry, texts: dict[int, str]) -> str:
    """Return the text of a list, dict or their like; equal neighbours in a list are collapsed."""
    is_dict = isinstance(entry.value, dict)
    if is_dict:
        runs = [(1, f"{value_text(below.key)}: {texts[id(below)]}") for below in entry.below]
    else:
        runs = equal_runs([texts[id(below)] for below in entry.below])
    shown = [f"{count} x {text}" if count > 1 else text for count, text in runs[:_MOST_ENTRIES]]
    if len(runs) > _MOST_ENTRIES:
        shown.append(f"... and {sum(count for count, _ in runs[_MOST_ENTRIES:]):,} more")
    if len(runs) == 1 and runs[0][0] > 1:
        return shown[0]
    opening, closing = "{}" if is_dict else "()" if isinstance(entry.value, tuple) else "[]"
    if isinstance(entry.value, State):
        opening, closing = "State({", "})"
    return _block(opening, shown, closing)


def equal_runs(texts: Iterable[str]) -> list[tuple[int, str]]:
    """Return the runs of equal texts, as pairs of length and text."""
    runs: list[tuple[int, str]] = []
    for text in texts:
        if runs and runs[-1][1] == text:
            runs[-1] = (runs[-1][0] + 1, text)
        else:
            runs.append((1, text))
    return runs


def _block(opening: str, entries: Iterable[str], closing: str) -> str:
    """Put entries between brackets: on one line if they fit, else one per line."""
    texts = list(entries)
    line = f"{opening}{', '.join(texts)}{closing}"
    if "\n" not in line and len(line) <= WIDTH:
        return line
    return "\n".join([opening, *map(indent, texts), closing])


class _RunningReprs(threading.local):
    """The modules whose own `__repr__` runs, by id, in each thread."""

    def __init__(self) -> None:
        self.modules: set[int] = set()


_running_reprs = _RunningReprs()


def _own_text(module: Any) -> str:
    """Return the repr that a class of modules defines itself, abbreviated if it raises or encloses itself."""
    if id(module) not in _running_reprs.modules:
        _running_reprs.modules.add(id(module))
        try:
            return str(repr(module))
        except Exception:
            pass
        finally:
            _running_reprs.modules.discard(id(module))
    return f"{type(module).__name__}(...)"


@functools.lru_cache(maxsize=1024)
def _has_own_repr(cls: type) -> bool:
    """Return whether a user wrote the `__repr__` of a class; the one that dataclasses generate does not count."""
    home = next((c for c in cls.__mro__ if "__repr__" in vars(c)), object)
    if not issubclass(home, Attributed) or home.__module__.partition(".")[0] == "liftnn":
        return False
    code = getattr(inspect.unwrap(vars(home)["__repr__"]), "__code__", None)
    return not (dataclasses.is_dataclass(home) and code is not None and code.co_filename == "<string>")
