"""The steps of a run and the folder that holds them: valid numbers, those that are there, and the next one."""

from __future__ import annotations

import errno
import fnmatch
import operator
import os
import pathlib
import re
from typing import Any

import numpy as np

from liftnn import errors
from liftnn._src.trees import an, is_tracer, type_of


def as_step(step: Any, what: str) -> int:
    """Return a step as an int.

    Args:
      step: An int, or an array or a Variable with one integer; a bool is none.
      what: The function that received it, for messages.

    Returns:
      The int.

    Raises:
      ArgumentError: If it is not a non-negative integer.
      ArgumentTypeError: If it is a tracer.
    """
    value = getattr(step, "raw_value", step)
    if is_tracer(value):
        raise errors.ArgumentTypeError(
            f"The step is a tracer: {what} was called inside a transform, where arrays have no values.",
            f"Call {what} outside of the compiled function.",
        )
    try:
        is_bool = isinstance(value, bool) or getattr(value, "dtype", None) == np.bool_
        number = None if is_bool else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < 0:
        kind = type_of(value) if hasattr(value, "dtype") else an(type(value))
        found = kind if number is None else number
        raise errors.ArgumentError(
            f"The step is {found}, not a non-negative integer.", _remedy(step, number, what)
        )
    return number


def _remedy(step: Any, number: int | None, what: str) -> str:
    """Return what to pass in place of a step that is none, or that is a number below 0."""
    if number is not None:
        latest = ", or None for the latest step" if what == "restore" else ""
        return f"Pass 0 or more{latest}."
    if what == "save" and hasattr(type(step), "__graph_node__"):
        return "The step is the second argument: `save(folder, step, model)`."
    return "Pass an int."


def as_max_to_keep(count: Any) -> int | None:
    """Return the number of checkpoints to keep, or None; raise ArgumentError if it is not one."""
    if count is None:
        return None
    try:
        number = None if isinstance(count, bool) else operator.index(count)
    except TypeError:
        number = None
    if number is None or number < 1:
        what = f"is {an(type(count))}, not a number" if number is None else f"is {number}"
        raise errors.ArgumentError(
            f"max_to_keep {what}; at least one checkpoint must be kept.",
            "Pass 1 or more, or None to keep all.",
        )
    return number


def find_steps(folder: pathlib.Path) -> list[int]:
    """Return the steps in a folder: the folders with a number as their name, which they get when they are complete."""
    if not folder.is_dir():
        return []
    return sorted(int(x.name) for x in folder.iterdir() if _STEP.fullmatch(x.name) and x.is_dir())


_STEP = re.compile("0|[1-9][0-9]*")


def check_next(folder: pathlib.Path, step: int, steps: list[int], max_to_keep: int | None, name: str) -> None:
    """Raise an error if a step cannot be saved beside others.

    Args:
      folder: The folder.
      step: The step.
      steps: Those that are in the folder, in order.
      max_to_keep: The number of checkpoints to keep; None means all.
      name: The name of the folder.

    Raises:
      ArgumentError: If the step is among them, or if there is something else of its name, which it would replace.
      CheckpointError: If later ones are there and old ones are removed: then the new one would be the oldest.
    """
    if step in steps or os.path.lexists(folder / str(step)):
        what = f"a checkpoint of step {step}" if step in steps else f"a file named {step}"
        raise errors.ArgumentError(
            f"The folder {name} already has {what}.",
            "Save another step, or in another folder.",
        )
    later = [x for x in steps if x > step]
    if later and max_to_keep is not None:
        raise errors.CheckpointError(
            f"The folder {name} has checkpoints of later steps than {step}: {', '.join(map(str, later))}; with "
            f"max_to_keep={max_to_keep} the new one would be removed before them.",
            "Save in another folder, remove the later checkpoints, or omit `max_to_keep`.",
        )


def make_folder(folder: pathlib.Path, name: str) -> None:
    """Create the folder of a run, if it is not there.

    Args:
      folder: The folder.
      name: Its name in messages.

    Raises:
      CheckpointError: If it cannot be created, nothing can be written in it, or Orbax would not write in it.
    """
    check_path(folder, name, "write")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        code = 0 if os.access(folder, os.W_OK | os.X_OK) else errno.EACCES
    except FileExistsError:
        code = errno.ENOTDIR
    except OSError as error:
        code = error.errno or errno.EIO
    if code:
        raise errors.CheckpointError(
            f"The folder {name} cannot be written: {os.strerror(code)}.",
            "Check its path and its permissions.",
        )


def check_path(folder: pathlib.Path, name: str, verb: str) -> None:
    """Raise an error for a path that Orbax takes for another one.

    Args:
      folder: The folder of a run.
      name: Its name in messages.
      verb: `"write"` or `"read"`.

    Raises:
      CheckpointError: If a name in the path is not UTF-8, or has a backslash, which Orbax takes for a slash; or if it
        is to be written, and has brackets, since Orbax finds its own files by patterns.
    """
    for part in folder.parts[1:]:
        is_pattern = verb == "write" and not fnmatch.fnmatchcase(part, part)
        if is_pattern or "\\" in part or part != part.encode(errors="ignore").decode():
            raise errors.CheckpointError(
                f"Orbax cannot {verb} checkpoints in the folder {name!r}: it misreads {part!r} in the path.",
                "Use a path without brackets, backslashes and bytes that are not UTF-8.",
            )
