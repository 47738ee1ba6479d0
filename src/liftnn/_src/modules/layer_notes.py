"""The note of an exception that names the layer that raised it, by its path from the outermost module.

The innermost call of a layer that an exception leaves records the layer. Each enclosing call of a module, also in an
outer transform, searches the path from its module to that layer, and rewrites the note. The path starts with the name
that the caller of the outermost module has for it. All this is done only when something is raised.
"""

from __future__ import annotations

import collections
import inspect
import types
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from liftnn._src.graph.attributes import Attributed
from liftnn._src.graph.kinds import KINDS, VARIABLE, classify, kind_by_type
from liftnn._src.tracebacks import OWN_FOLDER
from liftnn._src.trees import Path, an, format_path
from liftnn._src.variables import frames

_MOST_VISITED = 20_000
"""The maximum number of objects to visit in the search for a layer."""
_MOST_CALLERS = 16
"""The maximum number of methods without a note of their own to look through for the name of the outermost module."""
_NOTE_ATTRIBUTE = "_failing_layer"
"""The attribute of an exception with the layer that raised it."""


class _Record:
    """The layer that raised an exception, and the note that says so.

    Args:
      layer: The layer, referred to weakly, as are the objects that it is a copy of.
    """

    def __init__(self, layer: Any):
        self.text = an(type(layer))
        self.note = ""
        self._layers = [weakref.ref(x) for x in originals_of(layer)]

    def layers(self) -> set[int]:
        """Return the ids of the layer and of the objects that it is a copy of."""
        return {id(x) for x in (reference() for reference in self._layers) if x is not None}

    def __reduce__(self) -> Any:
        return str, (self.note,)  # an exception may be pickled; weak references cannot


class _Found(NamedTuple):
    """A module under the name that the running code has for it, and the path from there to the layer.

    Args:
      name: The name.
      path: The path.
    """

    name: str
    path: Path


def note_layer(error: Exception, module: Any, caller: types.FrameType | None) -> None:
    """Name the failing layer in a note of an exception that leaves the call of a module.

    A layer that its caller has under no longer path than a name gets no note: the traceback shows as much.

    Args:
      error: The exception.
      module: The module that was called.
      caller: The frame that called it.
    """
    try:
        record = error.__dict__.get(_NOTE_ATTRIBUTE)
        if not isinstance(record, _Record):
            record = error.__dict__[_NOTE_ATTRIBUTE] = _Record(module)
        layers = record.layers()
        path = _find_path(module, layers)
        found = None if path is None else _name(module, path, layers, caller)
        if found is not None and found.path:
            _set_note(error, record, f"raised in {format_path(found.path, found.name)} ({record.text})")
    except Exception:  # an attribute that cannot be read must not hide the user's error
        pass


def name_in_code(x: Any, frame: types.FrameType | None) -> str:
    """Return what the innermost code outside of liftnn calls a module or Variable, such as `model.layers[0]`.

    Args:
      x: The module or Variable.
      frame: The frame to start with.

    Returns:
      A variable of that code, with the path from it; an empty text if none leads there.
    """
    while frame is not None and frame.f_code.co_filename.startswith(OWN_FOLDER):
        frame = frame.f_back
    ids = {id(original) for original in originals_of(x)} | {id(x)}
    for name, root in [] if frame is None else _variables(frame):
        if id(root) in ids:
            return name
        path = _find_path(root, ids) if isinstance(root, Attributed) else None
        if path:
            return format_path(path, name)
    return ""


def _set_note(error: Exception, record: _Record, text: str) -> None:
    """Replace the note of a record, or add it."""
    notes = getattr(error, "__notes__", [])
    if record.note in notes:
        notes[notes.index(record.note)] = text
    else:
        error.add_note(text)
    record.note = text


def _name(module: Any, path: Path, layers: set[int], frame: types.FrameType | None) -> _Found:
    """Return the name that the code which called a module has for it, or for a module that holds it.

    Args:
      module: The module that was called.
      path: The path from it to the layer.
      layers: The ids of the layer.
      frame: The frame that called it.

    Returns:
      The name and the path from there to the layer.
    """
    best = _Found(type(module).__name__, path)
    for _ in range(_MOST_CALLERS):
        named = None if frame is None else _name_in(frame, module, layers)
        if frame is None or named is None:
            return best
        module, best = named
        if not _is_method(frame, module):
            return best
        best = _Found(type(module).__name__, best.path)  # `self` says nothing: ask the caller
        frame = frame.f_back
    return best


def _is_method(frame: types.FrameType, module: Any) -> bool:
    """Return whether a frame runs a method of a module."""
    method = getattr(type(module), frame.f_code.co_name, None)
    codes = [getattr(f, "__code__", None) for f in (method, inspect.unwrap(method))] if method else []
    return frame.f_code in codes


def _name_in(frame: types.FrameType, module: Any, layers: set[int]) -> tuple[Any, _Found] | None:
    """Return a variable of a frame that holds a module, or from which the layer can be reached, with the path."""
    modules = [(name, x) for name, x in _variables(frame) if isinstance(x, Attributed)]
    itself = [(name, x) for name, x in modules if x is module]
    others = [(name, x) for name, x in modules if x is not module]
    found = [(x, _Found(name, path)) for name, x in itself if (path := _find_path(x, layers)) is not None]
    if not found or not found[0][1].path:  # the name of the layer itself says less than a path to it
        longer = [(x, _Found(name, path)) for name, x in others if (path := _find_path(x, layers))]
        found = longer or found
    return found[0] if found else None


def _variables(frame: types.FrameType) -> Iterator[tuple[str, Any]]:
    """Yield the variables that the code of a frame uses: arguments, locals, captured variables and globals."""
    yield from frame.f_locals.items()
    for name in frame.f_code.co_names:
        if name in frame.f_globals:
            yield name, frame.f_globals[name]


def _find_path(root: Any, layers: set[int]) -> Path | None:
    """Return the shortest path from a module to a layer; None if it does not lead there."""
    todo: collections.deque[tuple[Path, Any]] = collections.deque([((), root)])
    seen = {id(root)}
    while todo and len(seen) < _MOST_VISITED:
        path, x = todo.popleft()
        if id(x) in layers:
            return path
        kind = kind_by_type(type(x)) or classify(x)
        if kind is VARIABLE or kind.name not in KINDS:
            continue
        _, keys, children = kind.flatten(x)
        for key, child in zip(keys, children, strict=True):
            if id(child) not in seen:
                seen.add(id(child))
                todo.append(((*path, key), child))
    return None


def originals_of(x: Any) -> list[Any]:
    """Return an object of the innermost frame, the object that it is a copy of, the original of that one, and so on.

    Args:
      x: The object.

    Returns:
      The objects, innermost first.
    """
    chain, frame = [x], frames.current_frame()
    while frame is not frames.PLAIN and frame.outer is not None:
        x = frame.original_of(x)
        if x is not chain[-1]:
            chain.append(x)
        frame = frame.outer
    return chain
