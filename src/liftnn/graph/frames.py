"""Which trace an object belongs to, and whether the running code may write to it.

Inside a transform every object belongs to a *frame*: the copies that were merged from the arguments and all objects
made since. Frames form a stack, one a thread; the bottom is plain Python. A frame also knows JAX's own trace at the
moment it was opened. So three situations can be told apart when an object is written:

- the object belongs to the innermost frame and JAX is still in that frame's trace: fine;
- it belongs to an outer frame: it was captured through a closure;
- JAX has gone into another trace since: the code runs under a raw JAX transform.

An object made under a raw JAX transform belongs to that trace alone; its owner is then the trace state itself.
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
    """

    __slots__ = ("__weakref__", "name", "sealed", "trace_state")

    def __init__(self, name: str, sealed: bool = False):
        self.name = name
        self.sealed = sealed
        self.trace_state = get_opaque_trace_state()


class _Current(threading.local):
    """The innermost frame of each thread."""

    frame: Frame


PLAIN = Frame("plain Python")
_Current.frame = PLAIN
_current = _Current()
_lock = threading.Lock()

open_frames = 0
"""How many frames are open in all threads: while it is 0, reading a Variable needs no check."""


@contextmanager
def open_frame(name: str, sealed: bool = False) -> Iterator[Frame]:
    """Makes a new frame the innermost one of this thread."""
    global open_frames
    outer, frame = _current.frame, Frame(name, sealed)
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
    return frame if state == frame.trace_state else state


def is_plain() -> bool:
    """Whether the code that runs now is under no transform, ours or JAX's."""
    return _current.frame is PLAIN and get_opaque_trace_state() == PLAIN.trace_state


def may_write(owner: Any) -> bool:
    """Whether an object of `owner` may be written by the code that runs now."""
    frame, state = _current.frame, get_opaque_trace_state()
    return state == (frame.trace_state if owner is frame else owner)


def may_read(owner: Any) -> bool:
    """Whether an object of `owner` may be read by the code that runs now."""
    frame = _current.frame
    return not frame.sealed or owner is frame or not isinstance(owner, Frame)


def write_error(owner: Any, what: str) -> errors.TraceContextError:
    """The error for a write that `may_write` refuses.

    Args:
      owner: The owner of the object.
      what: The object in words, such as `"a Param"` or `"the attribute 'w' of a Linear"`.

    Returns:
      The error to raise.
    """
    frame = _current.frame
    if owner is frame:
        inside = f"inside liftnn.{frame.name}" if frame is not PLAIN else "from plain Python"
        return errors.TraceContextError(
            f"Cannot change {what} here: it came {inside}, and this code runs under a raw JAX transform "
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
