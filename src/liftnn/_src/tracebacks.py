"""Tracebacks that end in the user's line: liftnn hides its own frames as JAX hides its, and by the same setting.

The setting is `jax_traceback_filtering`. JAX's functions hide JAX's frames. liftnn's public functions hide those of
liftnn, and those of JAX and of the standard library that liftnn has called. A `try` costs nothing where nothing is
raised, so what is called often has one of its own; the rest has the decorator `boundary`.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import linecache
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax

from liftnn import errors

F = TypeVar("F", bound=Callable[..., object])

_HERE = os.path.join(os.path.dirname(__file__), "")
_CALLED = frozenset(sys.stdlib_module_names) | {"jax", "jaxlib", "liftnn"}
"""Packages whose frames are hidden where liftnn has called them; of its own that is code without a file."""
_OWN_WORDS = (errors.LiftError, LookupError, AttributeError)
"""Errors that need no frames of liftnn's to be understood."""
_WITH_ALL_FRAMES = ("UnfilteredStackTrace", "UnfilteredTraceback")
"""What JAX and liftnn put before an error to show all frames; JAX's class is not public."""


class UnfilteredTraceback(Exception):  # noqa: N818  # no error: it carries the traceback of one
    """The cause of an error under `jax_traceback_filtering="remove_frames"`; its traceback has all frames."""


def boundary(function: F) -> F:
    """A function, or a class with its public methods, that hides liftnn's frames in the errors that leave it.

    Args:
      function: The function, or class.

    Returns:
      It. Where it is called often, its own `try` with `hide_frames` is cheaper.
    """
    if isinstance(function, type):
        for name, method in list(vars(function).items()):
            if isinstance(method, types.FunctionType) and (name[0] != "_" or name in _SPECIAL):
                setattr(function, name, boundary(method))
        return function  # pyright: ignore[reportReturnType]  # the class that it was

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            hide_frames(error)
            raise

    return call  # pyright: ignore[reportReturnType]  # the same signature


_SPECIAL = ("__init__", "__call__", "__getitem__")


def hide_frames(error: Exception) -> None:
    """Hides liftnn's frames in the traceback of an error, and of those that led to it.

    Call it in an `except` clause, before a bare `raise`.

    Args:
      error: The error; its traceback is changed in place.
    """
    config: Any = jax.config  # JAX adds its options at run time
    mode = config.jax_traceback_filtering
    if mode in (None, "auto"):
        mode = "tracebackhide" if hasattr(builtins, "get_ipython") else "quiet_remove_frames"
    if mode == "off":
        return
    if mode == "tracebackhide":
        for frame in [tb.tb_frame for x in _chain(error) for tb, hidden in _entries(x) if hidden]:
            frame.f_locals["__tracebackhide__"] = True
        return
    whole = error.__traceback__
    came_from_inside = [hidden for _, hidden in _entries(error)][-1:] == [True]
    removed = [_remove_frames(x) for x in _chain(error)]
    cause = error.__cause__
    if isinstance(error, errors.LiftError) and cause is not None and cause.__traceback__ is None:
        error.__cause__ = None  # it says in JAX's words, about flat lists, what the error says by path
    if mode == "remove_frames" and any(removed):
        _keep(error, whole)
    elif came_from_inside and not isinstance(error, _OWN_WORDS):
        error.add_note(
            "liftnn has removed its frames from this traceback; JAX_TRACEBACK_FILTERING=off shows them."
        )


class Line(NamedTuple):
    """A line of the user's code.

    Args:
      file: The file.
      number: The line, from 1.
      function: The function that it is in.
    """

    file: str
    number: int
    function: str


def users_line() -> Line:
    """The line of the user's that is running now."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (_is_own(frame) or _package(frame) in _CALLED):
        frame = frame.f_back
    return Line(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def at_line(error: errors.LiftError, line: Line | None) -> errors.LiftError:
    """The error with a traceback that ends in another line than the one that raises it.

    What is wrong may be known only when a function has returned, and be wrong because of one of its lines.

    Args:
      error: The error.
      line: The line, None if it is not known.

    Returns:
      The error, to be raised.
    """
    if line is None:
        return error
    text = linecache.getline(line.file, line.number).encode()
    statement = ast.Raise(ast.Name("error", ast.Load()))
    node: Any
    for node in ast.walk(statement):  # from the first column to the last: so nothing is underlined
        node.lineno = node.end_lineno = line.number
        node.col_offset, node.end_col_offset = len(text) - len(text.lstrip()), len(text.rstrip())
    code = compile(ast.Module([statement], []), line.file, "exec").replace(co_name=line.function)
    with contextlib.suppress(errors.LiftError):
        exec(code, {"error": error})
    here = error.__traceback__
    return error.with_traceback(here and here.tb_next)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it; not those that are there to show all frames."""
    todo, seen = [error], set()
    while todo:
        x = todo.pop()
        if id(x) not in seen and type(x).__name__ not in _WITH_ALL_FRAMES:
            seen.add(id(x))
            yield x
            todo += [y for y in (x.__cause__, x.__context__) if y is not None]


def _entries(error: BaseException) -> Iterator[tuple[types.TracebackType, bool]]:
    """The entries of a traceback, outermost first, and whether each is to be hidden."""
    tb, inside = error.__traceback__, False
    while tb is not None:
        inside = _is_own(tb.tb_frame) or (inside and _package(tb.tb_frame) in _CALLED)
        yield tb, inside
        tb = tb.tb_next


def _is_own(frame: types.FrameType) -> bool:
    """Whether a frame runs code of liftnn's."""
    return frame.f_code.co_filename.startswith(_HERE)


def _package(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _remove_frames(error: BaseException) -> bool:
    """Makes a traceback anew without the hidden entries; whether there were any."""
    entries = list(_entries(error))
    if not any(hidden for _, hidden in entries):
        return False
    rest: types.TracebackType | None = None
    for tb, hidden in reversed(entries):
        if not hidden:
            rest = types.TracebackType(rest, tb.tb_frame, tb.tb_lasti, tb.tb_lineno)
    error.__traceback__ = rest
    return True


def _keep(error: Exception, whole: types.TracebackType | None) -> None:
    """Puts an exception with all frames before an error, as JAX does, unless JAX has done so."""
    x: BaseException | None = error
    while x is not None:
        if type(x).__name__ in _WITH_ALL_FRAMES:
            return
        x = x.__cause__
    kept = UnfilteredTraceback("This traceback has all frames; the next one only those of your code.")
    kept.__traceback__ = whole
    kept.__cause__, kept.__context__ = error.__cause__, error.__context__
    kept.__suppress_context__ = error.__suppress_context__
    error.__cause__ = kept
