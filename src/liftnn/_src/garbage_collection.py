"""Postpone the full garbage collections of Python while very many objects are created that all stay alive."""

from __future__ import annotations

import gc
import threading

_NEVER = 2**31 - 1
"""The highest threshold of the oldest generation: it is never collected automatically."""


class NoFullCollections:
    """A context without automatic full collections, for code that creates many objects and little garbage.

    A full collection goes through all objects of the process. Python starts one when the objects that survived a
    younger collection are a quarter of the older ones. An abstract trace creates dozens of small objects for each
    Variable, which all live until the trace ends, so these collections find nothing, take almost half of the time, and
    more of them come as the model grows.

    This is safe for the memory: the two younger generations are collected as ever, so garbage is freed unless it is
    in a cycle that survived both; and inside an abstract trace arrays have shapes only. `gc.collect()` works, and after
    the block Python starts the next full collection when it is due. In a process without automatic collection nothing
    changes.

    The threshold belongs to the process, so blocks in several threads, or in each other, count: the first sets it, and
    the last restores it. If other code has changed it in between, that is kept. From Python 3.14 on the collector works
    in increments, has no such threshold, and this does nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entered = 0
        self._before = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._entered:
                young, middle, self._before = gc.get_threshold()
                gc.set_threshold(young, middle, _NEVER)
            self._entered += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._entered -= 1
            if not self._entered:
                young, middle, oldest = gc.get_threshold()
                if oldest == _NEVER:
                    gc.set_threshold(young, middle, self._before)


no_full_collections = NoFullCollections()
"""The context of this process; it may be entered in several threads, and again inside."""
