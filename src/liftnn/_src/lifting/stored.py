"""Detect and undo what a trace stores in captured objects: modules that exist only in it, where no module was.

The search for captured modules records where it found none, since a module may be stored there later: variables,
containers, attributes. A module that a trace has created, or that is a copy of an argument, must not stay there: its
arrays are tracers.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from liftnn import errors
from liftnn._src.captures.search import find_captured
from liftnn._src.captures.snapshots import CapturedSnapshot, Change, EntriesSnapshot, is_new_cached
from liftnn._src.lifting.leaks import children_of, find_leak
from liftnn._src.trees import an
from liftnn._src.variables import frames


def undo_stored(
    snapshots: Sequence[CapturedSnapshot], frame: frames.Frame, functions: Sequence[Any]
) -> errors.TraceContextError | None:
    """Undo what a trace has stored.

    Args:
      snapshots: What captured objects held when the trace began.
      frame: The frame of the trace.
      functions: The functions that have run.

    Returns:
      The error to raise; None if nothing was stored that exists only in the trace.
    """
    found = list(_find(snapshots, frame))
    if not found:
        return None
    change, leaked = found[0]
    names = {id(x): name for name, x in find_captured(functions).roots.items()}
    for each, _ in found:
        each.undo()
    return _error(names.get(id(leaked)) or repr(change.key), leaked, frame)


def _find(snapshots: Sequence[CapturedSnapshot], frame: frames.Frame) -> Iterator[tuple[Change, Any]]:
    """Yield each change that has stored a Module or Variable of the trace, and that object."""
    for snapshot in snapshots:
        for change in snapshot.changes():
            leaked = find_leak(change.value, frame, False, _parts_of)
            if leaked is None or _is_computed_again(snapshot, change, leaked, frame):
                continue
            if isinstance(snapshot, EntriesSnapshot) and snapshot.is_collection and frame.name_of(leaked):
                continue  # kept to be looked at, perhaps; any use raises
            yield change, leaked


def _is_computed_again(snapshot: CapturedSnapshot, change: Change, leaked: Any, frame: frames.Frame) -> bool:
    """Return whether a value of a cached property, such as the state of a captured module, will be removed."""
    creates = hasattr(type(leaked), "_module_parts") and not frame.name_of(leaked)
    return not creates and is_new_cached(snapshot, change)


def _parts_of(x: Any) -> Sequence[Any]:
    """Return the objects that an object refers to; none of a function, whose closure may hold what it had at hand."""
    is_reference = isinstance(x, (types.FunctionType, types.GeneratorType, weakref.ref))
    return () if is_reference else children_of(x)


def _error(name: str, leaked: Any, frame: frames.Frame) -> errors.TraceContextError:
    copy = frame.name_of(leaked)
    what = f"the copy of {copy}" if copy else f"{an(type(leaked))} created"
    return errors.TraceContextError(
        f"{name}, which the function captures, was set to {what} inside liftnn.{frame.name}. It would leak: its arrays "
        "exist only in that trace.",
        "Create the module before the call, or make it an attribute of a module, and pass that module as an argument "
        f"to the function given to liftnn.{frame.name}.",
    )
