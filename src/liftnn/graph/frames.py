"""Which trace an object belongs to, and whether the running code may write to it.

Inside a transform every object belongs to a *frame*: the copies that were merged from the arguments and all objects
made since. Frames form a stack, one a thread; the bottom is plain Python. A frame also knows JAX's own trace at the
moment it was opened. So three situations can be told apart when an object is written:

- the object belongs to the innermost frame and JAX is still in that frame's trace: fine;
- it belongs to an outer frame: it was captured through a closure;
- JAX has gone into another trace since: the code runs under a raw JAX transform.

An object made under a raw JAX transform belongs to that trace alone; its owner is a `RawTrace`. A Variable that such a
transform has taken apart and put together again, because it stood among its arguments, is `COPIED`: it can be read, and
writing it would be lost.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jax.extend.core import get_opaque_trace_state

from liftnn import errors


class Frame:
    """One running transform (or plain Python): the owner of the objects that live in it.

    Args:
      name: Name of the transform, for messages.
      sealed: Whether objects of outer frames may not even be read, because what is read now would be a constant of
        a program that is compiled once and run many times.
      outer: The frame around it; None for plain Python.
    """

    __slots__ = ("__weakref__", "name", "outer", "sealed", "trace_state")

    def __init__(self, name: str, sealed: bool = False, outer: Frame | None = None):
        self.name = name
        self.sealed = sealed
        self.outer = outer
        self.trace_state = get_opaque_trace_state()


class RawTrace:
    """The owner of objects made under a raw JAX transform.

    Args:
      frame: The innermost frame when they were made.
      trace_state: JAX's trace.
    """

    __slots__ = ("frame", "trace_state")

    def __init__(self, frame: Frame, trace_state: Any):
        self.frame = frame
        self.trace_state = trace_state


class _Copied:
    """The type of `COPIED`."""

    __slots__ = ()


COPIED = _Copied()
"""The owner of Variables that a raw JAX transform has made from its arguments."""


class _Current(threading.local):
    """The innermost frame of each thread."""

    frame: Frame


def _make_plain_frame() -> Frame:
    """The frame of plain Python. A new thread is in no trace, even if this file is first imported under `jax.jit`."""
    made: list[Frame] = []
    thread = threading.Thread(target=lambda: made.append(Frame("plain Python")))
    thread.start()
    thread.join()
    return made[0]


PLAIN = _make_plain_frame()
_Current.frame = PLAIN
_current = _Current()
_lock = threading.Lock()

open_frames = 0
"""How many frames are open in all threads: while it is 0, reading a Variable needs no check."""


@contextmanager
def open_frame(name: str, sealed: bool = False) -> Iterator[Frame]:
    """Makes a new frame the innermost one of this thread."""
    global open_frames
    outer = _current.frame
    frame = Frame(name, sealed, outer)
    with _lock:
        open_frames += 1
    _current.frame = frame
    try:
        yield frame
    finally:
        _current.frame = outer
        with _lock:
            open_frames -= 1


def current_frame() -> Frame:
    """The innermost frame of this thread."""
    return _current.frame


def owner_now() -> Any:
    """What an object made now belongs to: the innermost frame, or the trace of a raw JAX transform inside it."""
    frame, state = _current.frame, get_opaque_trace_state()
    return frame if state == frame.trace_state else RawTrace(frame, state)


def is_plain() -> bool:
    """Whether the code that runs now is under no transform, ours or JAX's."""
    return _current.frame is PLAIN and get_opaque_trace_state() == PLAIN.trace_state


def may_write(owner: Any) -> bool:
    """Whether an object of `owner` may be written by the code that runs now."""
    if owner is _current.frame or type(owner) is RawTrace:
        return bool(get_opaque_trace_state() == owner.trace_state)
    return False


def may_read(owner: Any) -> bool:
    """Whether an object of `owner` may be read by the code that runs now."""
    home = owner.frame if type(owner) is RawTrace else owner
    frame: Frame | None = _current.frame
    while frame is not None and frame is not home:
        if frame.sealed:
            return owner is COPIED
        frame = frame.outer
    return True


def write_error(owner: Any, what: str) -> errors.TraceContextError:
    """The error for a write that `may_write` refuses.

    Args:
      owner: The owner of the object.
      what: The object in words, such as `"a Param"` or `"the attribute 'w' of a Linear"`.

    Returns:
      The error to raise.
    """
    frame = _current.frame
    if owner is COPIED:
        return errors.TraceContextError(
            f"Cannot change {what} here: it is a copy that a raw JAX transform made of its argument, and the change "
            "would be lost.",
            "Use the liftnn transform of the same name instead.",
        )
    if owner is frame:
        inside = f"was made inside liftnn.{frame.name}" if frame is not PLAIN else "comes from plain Python"
        return errors.TraceContextError(
            f"Cannot change {what} here: it {inside}, and this code runs under a raw JAX transform "
            "(jax.jit, jax.grad, jax.vmap, jax.lax.scan ...), which would lose the change or leak a tracer.",
            "Use the liftnn transform of the same name instead, and pass the object as an argument.",
        )
    origin = f"liftnn.{owner.name}" if isinstance(owner, Frame) and owner is not PLAIN else "the code outside"
    return errors.TraceContextError(
        f"Cannot change {what} here: it belongs to {origin} and reached liftnn.{frame.name} through a closure.",
        f"Pass the object as an argument of the function given to liftnn.{frame.name}.",
    )


def read_error(what: str) -> errors.TraceContextError:
    """The error for a read that `may_read` refuses."""
    name = _current.frame.name
    return errors.TraceContextError(
        f"Cannot read {what} here: it reached liftnn.{name} through a closure, and its value would be compiled in as "
        "a constant that later changes do not reach.",
        f"Pass the object as an argument of the function given to liftnn.{name}.",
    )
