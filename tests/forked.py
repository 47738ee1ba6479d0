"""Processes that have imported JAX and liftnn when they start: a server imports them once, and forks each process.

A new interpreter takes two seconds for these imports. The server has not used JAX, so each process starts its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["jax.numpy", "liftnn", "orbax.checkpoint", "safetensors"])


def start(function: Callable[..., None], *args: Any) -> tuple[BaseProcess, Connection]:
    """Start a process that calls a function.

    Args:
      function: A function of a module, called with a connection to report to, and the arguments.
      *args: Arguments that can be pickled.

    Returns:
      The process, and the other end of the connection.
    """
    reports, end = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=function, args=(end, *args), daemon=True)
    process.start()
    end.close()
    return process, reports


def reports_of(reports: Connection) -> Iterator[Any]:
    """Yield what a process reports until it ends."""
    while True:
        try:
            yield reports.recv()
        except EOFError:
            return


def die_at(operation: int, folder: str) -> Callable[[], None]:
    """Let this process die by SIGKILL at a file operation.

    Args:
      operation: The number of the operation, counted from 1: an audit event that opens a file in the folder, or renames
        or removes files. With 0 the process lives.
      folder: The folder.

    Returns:
      A function that starts to count.
    """
    count = -1

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if count < 0 or not event.startswith(("open", "os.", "shutil.")) or event == "os.putenv":
            return
        if event == "open" and not str(args[0]).startswith(folder):
            return
        count += 1
        if count == operation:
            os.kill(os.getpid(), signal.SIGKILL)

    def begin() -> None:
        nonlocal count
        count = 0

    sys.addaudithook(hook)
    return begin
