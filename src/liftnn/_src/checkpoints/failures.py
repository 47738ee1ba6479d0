"""A write that fails in one process is an error in all of them.

Orbax writes in a background thread of each process, and then waits at a barrier for the other processes. One that has
failed does not come, so the others would wait for Orbax's timeout of 20 minutes. Here a process that fails writes its
error to a file in the folder of the run; then all processes wait at a barrier of their own, and look for that file.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax

from liftnn import errors

_FAILED = ".failed."
_TIMEOUT = 1200.0
"""Seconds; Orbax's own."""
_numbers = itertools.count()
"""Of the saves of this process. All processes save in the same order, so a save has the same number in all of them."""


class SharedOutcome:
    """Whether the parts of one save are written, in all processes; a future of Orbax.

    Args:
      folder: The folder of the run, which all processes see.
      futures: Those of Orbax for the parts that this process writes.
      error: What the start of the save has raised in this process, or None.
    """

    def __init__(self, folder: str, futures: Sequence[Any], error: Exception | None = None):
        number = next(_numbers)
        self._file = pathlib.Path(folder, f"{_FAILED}{number}")
        self._key = f"liftnn.written.{number}"
        self._futures = futures
        self._error = error

    def result(self, timeout: float | None = None) -> None:
        """Wait until all processes have written their parts.

        Args:
          timeout: The seconds for all of it. The default, None, means 20 minutes.

        Raises:
          Exception: What was raised in this process.
          CheckpointError: If another process has failed.
        """
        end = time.monotonic() + (_TIMEOUT if timeout is None else timeout)
        error = self._error or self._write(end)
        if error is not None:
            self._tell(error)
        multihost = importlib.import_module("orbax.checkpoint").multihost
        multihost.get_barrier_sync_fn()(key=self._key, timeout_ms=max(1, int(_left(end) * 1000)))
        if error is not None:
            raise error
        if self._file.exists():
            cause = self._file.read_text()
            raise errors.CheckpointError(
                "The checkpoint was written here, but not in another process"
                + (f":\n  {cause}" if cause else ", whose own error says why."),
                "The last complete checkpoint is intact. Fix the cause, such as a full disk, and save again.",
            )

    def _write(self, end: float) -> Exception | None:
        """Wait until this process has written its parts, and return what that has raised."""
        try:
            for future in self._futures:
                future.result(timeout=_left(end))
        except Exception as error:  # raised after the other processes know of it
            return error
        return None

    def _tell(self, error: Exception) -> None:
        """Write the file that tells the other processes of an error; a full disk has a file, but not its text."""
        with contextlib.suppress(OSError):
            self._file.write_text(f"process {jax.process_index()}: {type(error).__name__}: {error}")
        if not self._file.exists():
            raise error  # without the barrier, so that nobody takes the checkpoint for complete

    def cancel(self) -> None:
        """Cancel what can be cancelled, as Orbax asks for."""
        for future in self._futures:
            future.cancel()


def _left(end: float) -> float:
    """Return the seconds until a time of the monotonic clock."""
    return max(0.0, end - time.monotonic())


def remove_marks(folder: str) -> None:
    """Remove what earlier runs that failed have left in a folder."""
    for file in pathlib.Path(folder).glob(f"{_FAILED}*"):
        file.unlink(missing_ok=True)
