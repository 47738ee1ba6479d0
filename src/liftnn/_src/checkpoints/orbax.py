"""Orbax, loaded at first use, with a handler that also writes the index, and a manager of the folder."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
from typing import Any

import jax
import numpy as np

from liftnn import errors
from liftnn._src.checkpoints.checksums import checksums, list_files
from liftnn._src.checkpoints.failures import SharedOutcome, remove_marks
from liftnn._src.checkpoints.index import INDEX, Index
from liftnn._src.sharding.agreement import is_first_process

STATE_ITEM = "state"
"""The name of the folder in each step that holds arrays and index."""
_DELETED_FOLDER = ".deleted"
"""The folder to which steps are renamed before they are removed, so that a half removed one is never found."""
_EMPTY_TREE = {"nothing": np.zeros(1, np.uint8)}
"""Written in place of arrays if there are none, since Orbax does not write empty trees."""


@functools.cache
def load_orbax() -> Any:
    """Import Orbax; 0.5 s, so not with liftnn.

    Returns:
      The module `orbax.checkpoint`.

    Raises:
      MissingPackageError: If it is not installed.
    """
    try:
        return importlib.import_module("orbax.checkpoint")
    except ImportError as error:
        raise errors.MissingPackageError(
            "Checkpoints need the package orbax-checkpoint, which is not installed.",
            "Run `pip install 'liftnn[checkpoint]'`.",
        ) from error


@functools.cache
def _handler_class() -> type[Any]:
    """Return Orbax's handler of pytrees, extended by the index."""
    base = load_orbax().PyTreeCheckpointHandler

    class Handler(base):
        """Writes the index when the arrays are complete, before the folder gets its final name."""

        index: Index | None = None
        folder = ""

        async def async_save(self, *args: Any, **kwargs: Any) -> Any:
            if jax.process_count() == 1:
                return await super().async_save(*args, **kwargs)
            try:
                futures = await super().async_save(*args, **kwargs)
            except Exception as error:  # raised when all processes wait for the save
                return [SharedOutcome(self.folder, (), error)]
            return [SharedOutcome(self.folder, futures or ())]

        @classmethod
        def typestr(cls) -> str:
            """The class that Orbax reads the arrays with, also where liftnn is not there."""
            return base.typestr()

        def finalize(self, directory: Any) -> None:
            super().finalize(directory)
            if self.index is not None:
                self.index.files = checksums(directory, list(list_files(directory)))
                (directory / INDEX).write_text(self.index.to_text())

    return Handler


class Manager:
    """The steps of a folder that this process writes: saved in the background, kept or removed.

    Args:
      folder: The folder; it is created.
      compress: Whether the files are compressed.
    """

    def __init__(self, folder: str, compress: bool):
        ocp = load_orbax()
        self._folder = folder
        self._deleted = os.path.join(folder, _DELETED_FOLDER)
        self._remove_deleted()
        if is_first_process():  # the constructor of Orbax's manager waits for all processes
            remove_marks(folder)
        self._handler = _handler_class()(use_compression=compress)
        self._handler.folder = folder
        registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
        registry.add(STATE_ITEM, ocp.args.PyTreeSave, self._handler)
        options = ocp.CheckpointManagerOptions(create=True, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(folder, options=options, handler_registry=registry)

    def save(self, step: int, arrays: dict[str, Any], index: Index) -> None:
        """Start to save a step; returns when the arrays are copied.

        Args:
          step: The step.
          arrays: The arrays by name.
          index: The index, without the checksums.
        """
        self.wait()
        if jax.process_count() > 1 or step in self._manager.all_steps():
            self._manager.reload()  # without the steps that process 0, or the user, has removed
        self._handler.index = index
        args = load_orbax().args
        content = args.Composite(**{STATE_ITEM: args.PyTreeSave(arrays or _EMPTY_TREE)})
        self._manager.save(step, args=content, force=True)

    def wait(self) -> None:
        """Wait until the last save is complete, and raise what it raised."""
        self._manager.wait_until_finished()

    def delete(self, steps: list[int]) -> None:
        """Remove steps: each is first renamed in one operation, then removed.

        With several processes, process 0 does it alone. Orbax's `delete` waits for the other processes, which may look
        at the folder at another moment and find other steps to remove; and it raises for steps of another manager.
        """
        if not steps or not is_first_process():
            return
        os.makedirs(self._deleted, exist_ok=True)
        for step in steps:
            os.rename(os.path.join(self._folder, str(step)), os.path.join(self._deleted, str(step)))
        self._remove_deleted()

    def close(self) -> None:
        """Wait, and end the threads of Orbax."""
        self._manager.close()

    def _remove_deleted(self) -> None:
        if is_first_process():
            shutil.rmtree(self._deleted, ignore_errors=True)


def read_arrays(folder: Any, targets: dict[str, Any]) -> dict[str, Any]:
    """Read arrays by name.

    Args:
      folder: The folder with the arrays of a step.
      targets: For each name None to get a numpy array, or the sharding of the jax.Array to get.

    Returns:
      The arrays.
    """
    ocp, paths = load_orbax(), importlib.import_module("etils.epath")
    restore_args = {
        name: ocp.RestoreArgs(restore_type=np.ndarray)
        if sharding is None
        else ocp.ArrayRestoreArgs(restore_type=jax.Array, sharding=sharding, strict=True)
        for name, sharding in targets.items()
    }
    item = dict.fromkeys(targets, 0)
    args = ocp.args.PyTreeRestore(item=item, restore_args=restore_args, partial_restore=True)
    handler = ocp.PyTreeCheckpointHandler()  # a Checkpointer would wait for a process that raises
    try:
        return handler.restore(paths.Path(folder), args=args)
    finally:
        handler.close()
