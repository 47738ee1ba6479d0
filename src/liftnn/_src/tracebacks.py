"""Tracebacks that end in the user's line: liftnn hides its own frames as JAX does, controlled by the same setting.

The setting is `jax_traceback_filtering`. JAX's functions hide JAX's frames. liftnn's public functions hide the frames
of liftnn, and those of JAX and of the standard library that liftnn has called. A `try` is free if nothing is raised, so
frequently called functions have their own `try`; other functions use the decorator `boundary`.
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
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax

from liftnn import errors
from liftnn._src import lazy

F = TypeVar("F", bound=Callable[..., object])

OWN_FOLDER = os.path.join(os.path.dirname(__file__), "")
"""The installed folder of the implementation, with a separator at the end: other folders may start with its name."""
_CALLED = frozenset(sys.stdlib_module_names) | {"jax", "jaxlib", "liftnn"}
"""Packages with frames that are hidden if liftnn has called them; "liftnn" covers its generated code without a file."""
_OWN_WORDS = (errors.LiftError, LookupError, AttributeError)
"""Errors that users understand without liftnn's frames."""
_WITH_ALL_FRAMES = ("UnfilteredStackTrace", "UnfilteredTraceback")
"""Exceptions that JAX and liftnn chain to an error to show all frames; JAX's class is not public."""
_NOTE = "liftnn has removed its frames from this traceback; JAX_TRACEBACK_FILTERING=off shows them."


class UnfilteredTraceback(Exception):  # noqa: N818  # not an error: it carries the traceback of one
    """The cause of an error under `jax_traceback_filtering="remove_frames"`; its traceback has all frames."""


def boundary(function: F) -> F:
    """Hide liftnn's frames in the errors that a function, or the public methods of a class, raise.

    Args:
      function: The function or class.

    Returns:
      The wrapped function, or the class. For frequently called functions, a `try` with `hide_frames` is faster.
    """
    if isinstance(function, type):
        for name, method in list(vars(function).items()):
            kind = type(method)
            is_bound = kind in (classmethod, staticmethod)
            is_public = name[0] != "_" or name in _SPECIAL_METHODS
            if (is_bound or kind is types.FunctionType) and is_public and not hasattr(method, _HIDES_FRAMES):
                setattr(function, name, kind(boundary(method.__func__)) if is_bound else boundary(method))
        return function  # pyright: ignore[reportReturnType]  # the same class

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            try:
                explain_arguments(error, function)
            except errors.ArgumentTypeError as explained:
                hide_frames(explained)
                raise
            hide_frames(error)
            raise

    return call  # pyright: ignore[reportReturnType]  # the same signature


def explain_arguments(error: Exception, function: Callable[..., object]) -> None:
    """Raise a clear error in place of Python's if the arguments of a call did not fit the parameters.

    Call it where the function was called, in an `except` clause: the traceback then shows if the function was entered.

    Args:
      error: What the call raised.
      function: The function.

    Raises:
      ArgumentTypeError: If the arguments did not fit, with what to write instead.
    """
    if type(error) is TypeError and error.__traceback__ is not None and error.__traceback__.tb_next is None:
        lazy.load("foreign_names").check_arguments(error, function)


_SPECIAL_METHODS = ("__init__", "__call__", "__getitem__")
_HIDES_FRAMES = "_hides_frames"
"""The attribute of functions that hide frames themselves."""


def mark_boundary(function: F) -> F:
    """Mark a function that calls `hide_frames` itself, so that `boundary` leaves it as it is."""
    setattr(function, _HIDES_FRAMES, True)
    return function


def hide_frames(error: Exception) -> None:
    """Hide liftnn's frames in the traceback of an error, and of the errors in its chain.

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
        error.__cause__ = None  # JAX's error is about flat lists; liftnn's says the same with paths
    if mode == "remove_frames" and any(removed):
        _keep(error, whole)
    elif came_from_inside and not isinstance(error, _OWN_WORDS) and _NOTE not in _notes(error):
        error.add_note(_NOTE)


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
    """Return the user's line that is running now."""
    frame, _ = _users_frame()
    return Line(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def local_values(until: Any, skipped: str) -> list[Any]:
    """Return the values of the local variables of the running functions, innermost first.

    Args:
      until: The list ends before the function of liftnn that has this object in a variable.
      skipped: The file whose functions do not end it.
    """
    found: list[Any] = []
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        values = list(frame.f_locals.values())
        if _is_own(frame) and frame.f_code.co_filename != skipped and any(x is until for x in values):
            break
        found += values
        frame = frame.f_back
    return found


def has_users_frames(error: Exception) -> bool:
    """Return whether an error that liftnn is handling was raised in the user's code."""
    return any(not hidden for _, hidden in list(_entries(error)))


def warn(text: str, category: type[Warning]) -> None:
    """Give a warning at the user's line that is running now.

    Args:
      text: The text.
      category: The category.
    """
    warnings.warn(text, category, stacklevel=_users_frame()[1] + 1)


def call_at_users_line(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function of JAX as if the user's line that is running now called it: JAX's warnings point to its caller.

    Args:
      function: The function.
      *args: Its positional arguments.
      **kwargs: Its keyword arguments.

    Returns:
      The result.
    """
    frame, _ = _users_frame()
    call = ast.parse("function(*args, **kwargs)", mode="eval")
    code = compile(ast.increment_lineno(call, frame.f_lineno - 1), frame.f_code.co_filename, "eval")
    return eval(code, frame.f_globals, {"function": function, "args": args, "kwargs": kwargs})


def _users_frame() -> tuple[types.FrameType, int]:
    """Return the innermost frame of the user's code, and its distance from the caller."""
    frame, distance = sys._getframe(1), 0
    while frame.f_back is not None and (_is_own(frame) or _package(frame) in _CALLED):
        frame, distance = frame.f_back, distance + 1
    return frame, distance


def at_line(error: errors.LiftError, line: Line | None) -> errors.LiftError:
    """Return the error with a traceback that ends in a given line of the user's code.

    Some errors are only detected after a function has returned, although one of its lines caused them.

    Args:
      error: The error.
      line: The line; None if it is not known.

    Returns:
      The error, to be raised.
    """
    if line is None:
        return error
    text = linecache.getline(line.file, line.number).encode()
    statement = ast.Raise(ast.Name("error", ast.Load()))
    node: Any
    for node in ast.walk(statement):  # spans the whole line, so Python underlines nothing
        node.lineno = node.end_lineno = line.number
        node.col_offset, node.end_col_offset = len(text) - len(text.lstrip()), len(text.rstrip())
    code = compile(ast.Module([statement], []), line.file, "exec").replace(co_name=line.function)
    with contextlib.suppress(errors.LiftError):
        exec(code, {"error": error})
    here = error.__traceback__
    return error.with_traceback(here and here.tb_next)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors in its chain, except those that only show all frames."""
    todo, seen = [error], set()
    while todo:
        x = todo.pop()
        if id(x) not in seen and type(x).__name__ not in _WITH_ALL_FRAMES:
            seen.add(id(x))
            yield x
            todo += [y for y in (x.__cause__, x.__context__) if y is not None]


def _entries(error: BaseException) -> Iterator[tuple[types.TracebackType, bool]]:
    """Yield the entries of a traceback, outermost first, and whether each is hidden."""
    tb, inside = error.__traceback__, False
    while tb is not None:
        inside = _is_own(tb.tb_frame) or (inside and _package(tb.tb_frame) in _CALLED)
        yield tb, inside
        tb = tb.tb_next


def _is_own(frame: types.FrameType) -> bool:
    """Return whether a frame runs liftnn's code."""
    return frame.f_code.co_filename.startswith(OWN_FOLDER)


def _package(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _remove_frames(error: BaseException) -> bool:
    """Rebuild a traceback without the hidden entries; return whether there were any."""
    entries = list(_entries(error))
    if not any(hidden for _, hidden in entries):
        return False
    rest: types.TracebackType | None = None
    for tb, hidden in reversed(entries):
        if not hidden:
            rest = types.TracebackType(rest, tb.tb_frame, tb.tb_lasti, tb.tb_lineno)
    error.with_traceback(rest)  # not an assignment: the class may be a frozen dataclass
    return True


def _notes(error: Exception) -> list[str]:
    return getattr(error, "__notes__", [])  # created by the first note


def _keep(error: Exception, whole: types.TracebackType | None) -> None:
    """Chain an exception with all frames to an error, as JAX does, unless JAX has already done so."""
    x: BaseException | None = error
    while x is not None:
        if type(x).__name__ in _WITH_ALL_FRAMES:
            return
        x = x.__cause__
    kept = UnfilteredTraceback("This traceback has all frames; the next one has only those of your code.")
    kept.__traceback__ = whole
    kept.__cause__, kept.__context__ = error.__cause__, error.__context__
    kept.__suppress_context__ = error.__suppress_context__
    error.__cause__ = kept
