"""Frames: the trace that each object belongs to, and the check that the running code may write to an object.

Inside a transform every object belongs to a *frame*: the copies that were merged from the arguments and all objects
created since. Frames form a stack, one per thread; the bottom is plain Python. A frame also records JAX's own trace
at the time it was opened. This distinguishes three situations when an object is written:

- the object belongs to the innermost frame and JAX is still in that frame's trace: the write is allowed;
- the object belongs to an outer frame: it was captured through a closure;
- JAX has entered another trace since: the code runs under a raw JAX transform.

A captured object is an implicit argument: the transform splits it with the other arguments, and the frame maps it to
its copy inside. Its Variables are read and written through that copy (`resolve`). A captured object that was not found
before the call is recorded as missing. It gets a placeholder until the function has returned, and then the call is
repeated with the object as an input.

An object created under a raw JAX transform belongs to that trace only; its owner is a `RawTrace`. A Variable that such
a transform has flattened and unflattened, because it was part of its arguments, is `COPIED`: it can be read, but a
write would be lost.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Container, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from liftnn import errors
from liftnn._src.tracebacks import OWN_FOLDER, Line, local_values, users_line
from liftnn._src.trees import an
from liftnn._src.variables.owners import COPIED as COPIED, VIEW as VIEW, RawTrace as RawTrace
from liftnn._src.variables.retries import (
    RetryAsCapture as RetryAsCapture,
    RetryNeeded as RetryNeeded,
    RetryWithCaptures as RetryWithCaptures,
)


class Frame:
    """A running transform (or plain Python): the owner of the objects created in it.

    Args:
      name: Name of the transform, for messages.
      outer: The enclosing frame; None for plain Python.
      trace_state: JAX's trace at the time the frame is opened.
    """

    __slots__ = (
        "__weakref__", "_captured", "_copies", "_path_of", "_withheld", "missed_at", "missing", "name", "outer",
        "trace_state",
    )  # fmt: skip

    def __init__(self, name: str, outer: Frame | None = None, trace_state: Any = None):
        self.name = name
        self.outer = outer
        self.trace_state = trace_state
        self.missing: list[Any] = []
        """Objects of outer frames that were used here but are not inputs."""
        self.missed_at: Line | None = None
        """The line that used the first of them."""
        self._copies: dict[int, tuple[Any, Any, int]] = {}
        self._path_of: Callable[[int], str] | None = None
        self._withheld: Mapping[int, str] = {}
        self._captured: Container[int] | None = None

    def admit(
        self,
        originals: Sequence[Any],
        copies: Sequence[Any],
        path_of: Callable[[int], str],
        withheld: Mapping[int, str] = {},
        captured: Container[int] | None = None,
    ) -> None:
        """Map objects of outer frames to their copies.

        Args:
          originals: The objects.
          copies: The copy of each.
          path_of: Returns the path of an object as text, given its position.
          withheld: The positions of objects whose copies only the arguments lead to, with the cause of the error for a
            use of the objects themselves.
          captured: The positions of objects that captured modules reach: another one that code uses has been missed.
            The default, None, is all.
        """
        self._captured = captured
        self._withheld = {id(originals[i]): cause for i, cause in withheld.items()} if originals else {}
        self._copies = {id(x): (x, c, i) for i, (x, c) in enumerate(zip(originals, copies, strict=True))}
        self._path_of = path_of

    def proxy_for(self, x: Any, is_root: bool = False) -> Any:
        """Return the copy of an object of an outer frame; a new placeholder if the object is not an input.

        Args:
          x: The object.
          is_root: Whether a nested transform captures it: not all of its parts are used.
        """
        if self._withheld and not is_root:
            self._check(x)
        found = self._copies.get(id(x))
        if found is None or self._is_only_passed(found[2]):
            self.missed_at = self.missed_at or users_line()
            for missed in (x, *self._modules_at_hand()):
                known = self._copies.setdefault(id(missed), (missed, missed._placeholder(self), -1))
                if not any(missed is y for y in self.missing) and (
                    known[2] < 0 or self._is_only_passed(known[2])
                ):
                    self.missing.append(missed)
            found = self._copies[id(x)]
        return found[1]

    def _is_only_passed(self, position: int) -> bool:
        return position >= 0 and self._captured is not None and position not in self._captured

    def _check(self, x: Any) -> None:
        """Raise AliasingError for an object that is withheld."""
        if id(x) in self._withheld:
            raise errors.AliasingError(
                self._withheld[id(x)],
                "Use the argument instead, or read what you need in a local variable before the call.",
            )

    def _modules_at_hand(self) -> list[Any]:
        """Return the outer frame's modules in variables of running functions: a missed Variable belongs to one."""
        outer, known = self.outer, self.outer._copies if self.outer else {}
        modules = [x for x in local_values(self, __file__) if hasattr(type(x), "_module_parts")]
        copies = (x if x._owner is outer else lookup(x, True, outer) for x in modules)
        return [x for x in copies if x._owner is outer or id(x) in known]

    def copy_of(self, x: Any, is_root: bool = False) -> Any:
        """Return the copy of an object in this frame; the object itself if there is none. See `proxy_for`."""
        if self._withheld and not is_root:
            self._check(x)
        found = self._copies.get(id(x))
        return x if found is None else found[1]

    def original_of(self, copy: Any) -> Any:
        """Return the object of the outer frame that an object of this frame is a copy of; the object if it is none."""
        return next((x for x, c, _ in self._copies.values() if c is copy), copy)

    def drop_copies(self) -> None:
        """Drop the map from originals to copies: the copies refer to their frame, which would be a reference cycle."""
        self._copies, self._withheld = {}, {}
        self._path_of = None

    def name_of(self, copy: Any) -> str:
        """Return the path and class of an object of this frame as text; an empty string if it is not an input."""
        found = next((i for _, c, i in self._copies.values() if c is copy), -1)
        return f"{self._path_of(found)} ({an(type(copy))})" if self._path_of and found >= 0 else ""

    def path_to(self, x: Any) -> str | None:
        """Return the path of an object of an outer frame; None if it is not an input."""
        position = self._copies.get(id(x), (x, x, -1))[2]
        return None if position < 0 or self._path_of is None else self._path_of(position)


class _Current(threading.local):
    """The innermost frame of each thread, and where to record writes."""

    frame: Frame
    writes: tuple[Frame, dict[str, Line]] | None = None


def _load() -> Any:
    """Return JAX's trace on the first call: import `jax.extend` (17 ms) and find the trace of plain Python.

    From then on, JAX attributes the operations of liftnn to the user's lines that call it, as it does for its own: in
    jaxprs, programs, profiles and messages. JAX looks up the lines when it shows them, so this is early enough.

    The trace of plain Python is read in a new thread, which is in no trace even if the first call is under `jax.jit`.
    """
    global _trace_now
    extend: Any = importlib.import_module("jax.extend")
    extend.source_info_util.register_exclusion(OWN_FOLDER)
    opaque_trace_state: Any = extend.core.get_opaque_trace_state

    def trace_now() -> Any:
        try:
            return opaque_trace_state()
        except AssertionError:  # in a rule of a primitive, where JAX is in no trace
            return None

    thread = threading.Thread(target=lambda: setattr(PLAIN, "trace_state", trace_now()))
    thread.start()
    thread.join()
    _trace_now = trace_now
    return trace_now()


def prepare() -> None:
    """Import `jax.extend` now: in JAX 0.12 its import invalidates traces, so none should have been made before."""
    if _trace_now is _load:
        _load()


_trace_now: Callable[[], Any] = _load
"""Return JAX's current trace, an opaque value."""

PLAIN = Frame("plain Python")
"""The frame of plain Python; its trace is known after the first call of `_trace_now`."""
_Current.frame = PLAIN
_current = _Current()
_opening_lock = threading.RLock()  # the garbage collector may end an `Opening` while another one starts

open_frames = 0
"""The number of open frames and of running calls on the slow path in all threads: while it is 0, reading a Variable and
a call on the fast path need no check."""


_openings: set[int] = set()
"""The ids of what counts as open: a set, so that an update that a signal has interrupted is made good by the next."""


class Opening:
    """Counts in `open_frames` from `start` to `end`; to its own end if an exception from a signal prevents that."""

    __slots__ = ()

    def start(self) -> None:
        """Count from now on."""
        global open_frames
        with _opening_lock:
            _openings.add(id(self))
            open_frames = len(_openings)

    def end(self) -> None:
        """Count no more."""
        global open_frames
        with _opening_lock:
            _openings.discard(id(self))
            open_frames = len(_openings)

    def __del__(self) -> None:
        if id(self) in _openings:
            self.end()


@contextmanager
def push_frame(name: str) -> Generator[Frame]:
    """Push a new frame on the stack of this thread."""
    outer, opening = _current.frame, Opening()
    frame = Frame(name, outer, _trace_now())
    try:
        opening.start()
        _current.frame = frame
        yield frame
    finally:
        _current.frame = outer
        frame.drop_copies()
        opening.end()


@contextmanager
def noting_writes() -> Generator[dict[str, Line]]:
    """Record where the functions of the transforms called here write: lines by `Frame.name_of`, for messages."""
    before = _current.writes
    lines: dict[str, Line] = {}
    _current.writes = (_current.frame, lines)
    try:
        yield lines
    finally:
        _current.writes = before


def note_write(x: Any) -> None:
    """Record the user's line that writes an object of the innermost frame, inside `noting_writes`."""
    if _current.writes is not None:
        outer, lines = _current.writes
        if _current.frame.outer is outer:
            lines[_current.frame.name_of(x)] = users_line()


def current_frame() -> Frame:
    """Return the innermost frame of this thread."""
    return _current.frame


def owner_now() -> Any:
    """Return the owner of an object created now: the innermost frame, or the raw JAX trace inside it."""
    frame, state = _current.frame, _trace_now()
    return frame if state == frame.trace_state else RawTrace(frame, state)


def is_plain() -> bool:
    """Return whether the current code is under no transform, neither liftnn's nor JAX's."""
    return _current.frame is PLAIN and _trace_now() == PLAIN.trace_state


def may_write(owner: Any) -> bool:
    """Return whether the current code may write an object of `owner`."""
    if owner is _current.frame or type(owner) is RawTrace:
        return bool(_trace_now() == owner.trace_state)
    return False


def frames_up_to(x: Any) -> list[Frame] | None:
    """Return the frames inside that of an object, innermost first; None if the frame of the object is closed."""
    owner = x._owner
    home = owner.frame if type(owner) is RawTrace else owner
    between: list[Frame] = []
    frame: Frame | None = _current.frame
    while frame is not home:
        if frame is None:
            return None
        between.append(frame)
        frame = frame.outer
    return between


def origin_of(x: Any) -> Any:
    """Return the object of the outermost frame that an object is a copy of."""
    while type(x._owner) is Frame and (original := x._owner.original_of(x)) is not x:
        x = original
    return x


def resolve(x: Any, is_root: bool = False) -> Any:
    """Return the object that represents `x` in the innermost frame: `x` itself if it belongs there.

    Args:
      x: A Variable or Module.
      is_root: See `Frame.proxy_for`.

    Returns:
      The copy of a captured object that is an input; a placeholder for one that is not.
    """
    if _current.frame is PLAIN or x._owner is _current.frame:
        return x
    for frame in reversed(frames_up_to(x) or ()):
        x = frame.proxy_for(x, is_root)
    return x


def note_call(module: Any) -> None:
    """Record that a module is called: if it is a captured one that is not an input, it has been missed."""
    if module._owner is not _current.frame:
        resolve(module, is_root=True)


def resolve_argument(x: Any, is_root: bool = False) -> Any:
    """Return the innermost frame's copy of an argument that belongs to an outer frame.

    Args:
      x: A Variable, a Module or a container.
      is_root: See `Frame.proxy_for`.

    Returns:
      The copy; the object itself if it belongs here, or if there is no copy.

    Raises:
      StructureError: If it is a Variable or Module created in a transform that has returned.
    """
    if not hasattr(type(x), "__graph_node__"):
        return lookup(x, is_root)
    if x._owner is _current.frame:
        return x
    if isinstance(x._owner, Frame) and frames_up_to(x) is None:
        raise errors.StructureError(
            f"this {type(x).__name__} was created inside a transform that has returned (leaked).",
            "Return it from that transform, or store it in a module that was an argument of that transform.",
        )
    return resolve(x, is_root)


def _enclosing_frames(innermost: Frame | None = None) -> list[Frame]:
    """Return the frames that are open here, from the outermost to the innermost, or to another one."""
    chain: list[Frame] = []
    frame = innermost or _current.frame
    while frame is not None:
        chain.append(frame)
        frame = frame.outer
    return chain[::-1]


def is_withheld(x: Any) -> bool:
    """Return whether an enclosing map withholds an object, or a part of it; see `Frame.admit`."""
    for frame in _enclosing_frames():
        if id(x) in frame._withheld:
            return True
        x = frame.copy_of(x, True)
    return False


def lookup(x: Any, is_root: bool = False, innermost: Frame | None = None) -> Any:
    """Return the copy of an object of any kind in the innermost frame, or in another one; itself if there is none."""
    for frame in _enclosing_frames(innermost):
        x = frame.copy_of(x, is_root)
    return x


def is_raw_trace() -> bool:
    """Return whether the code runs under a raw JAX transform that the innermost frame does not know of."""
    return _trace_now() != _current.frame.trace_state
