"""Processes that have imported JAX and liftnn when they start: a server imports them once, and forks each process.

A new interpreter takes two seconds for these imports. The server has not used JAX, so each process starts its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import jax

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["jax.numpy", "liftnn", "orbax.checkpoint", "safetensors", "matplotlib.figure"]
)


def start(function: Callable[..., None], *args: Any, flags: str = "") -> tuple[BaseProcess, Connection]:
    """Start a process that calls a function, on the CPU.

    Args:
      function: A function of a module, called with a connection to report to, and the arguments.
      *args: Arguments that can be pickled.
      flags: `XLA_FLAGS` of the process.

    Returns:
      The process, and the other end of the connection.
    """
    reports, end = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_run, args=(flags, function, end, *args), daemon=True)
    process.start()
    end.close()
    return process, reports


def _run(flags: str, function: Callable[..., None], reports: Connection, *args: Any) -> None:
    os.environ["XLA_FLAGS"] = flags
    jax.config.update("jax_platforms", "cpu")
    warnings.simplefilter("ignore")
    try:
        function(reports, *args)
    except BaseException:
        reports.send(traceback.format_exc())
        raise


def run_until_killed(function: Callable[..., None], *args: Any, seconds: float | None = None) -> list[Any]:
    """Run a function in a process that is killed, and return what it reported after `ready`.

    Args:
      function: A function of a module, called with a connection to report to, and the arguments.
      *args: Arguments that can be pickled.
      seconds: The time after `ready` at which to kill the process. The default, None, means that it kills itself.

    Raises:
      AssertionError: If the process ends in another way, or reports nothing for five minutes.
    """
    process, reports = start(function, *args)
    ready = reports.recv()
    assert ready == "ready", ready
    if seconds is not None:
        time.sleep(seconds)
        process.kill()
    found: list[Any] = []
    with contextlib.suppress(EOFError):
        while reports.poll(300):
            found.append(reports.recv())
    process.join(300)
    assert process.exitcode == -signal.SIGKILL, found[-1:]
    return found


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
