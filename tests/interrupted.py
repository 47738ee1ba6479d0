"""Interrupt a call at each of its lines, as a signal handler does that raises."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


class InterruptError(BaseException):
    """What the handler raises; like KeyboardInterrupt it is not an Exception."""


class Interrupt:
    """Raises at one line event in some files.

    Args:
      at: Which event.
      files: The ends of the names of the files.
    """

    def __init__(self, at: int, files: tuple[str, ...]):
        self.at = at
        self.files = files
        self.count = 0

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.endswith(self.files):
            return None
        if event == "line":
            self.count += 1
            if self.count > self.at:
                sys.settrace(None)
                raise InterruptError
        return self


def interruptions(make: Callable[[], Callable[[], Any]], *files: str) -> Iterator[int]:
    """Interrupt calls, each at another line event; yield after each of them.

    Args:
      make: Makes the objects and returns the call.
      *files: The ends of the names of the files with the lines.

    Yields:
      The number of the event.
    """
    at, before = 0, sys.gettrace()
    while True:
        call, is_done = make(), False
        sys.settrace(Interrupt(at, files))
        try:
            call()
            is_done = True
        except InterruptError:
            pass
        finally:
            sys.settrace(before)
        if is_done:
            assert at > 0, "none of the files has run"
            return
        yield at
        at += 1
