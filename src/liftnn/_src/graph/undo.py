"""All or nothing: complete an action despite exceptions, and restore objects to an earlier state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from liftnn._src.graph.kinds import VARIABLE, classify, kind_by_type
from liftnn._src.variables.variable import set_metadata_past_checks, set_value_past_hooks

T = TypeVar("T")


def to_the_end(action: Callable[[], Any]) -> None:
    """Run a repeatable action to completion, even if up to two exceptions arrive while it runs.

    Args:
      action: The action.

    Raises:
      BaseException: The exception that arrived, after the action has completed; or the third one.
    """
    try:  # written out: in a loop an exception may arrive between one attempt and the next
        action()
    except BaseException:
        try:
            action()
        except BaseException:
            action()
            raise
        raise


class Former:
    """The state of an object before a commit.

    Args:
      x: The object.
    """

    __slots__ = ("cls", "kind", "metadata", "opened", "value", "x")

    def __init__(self, x: Any):
        self.x = x
        self.cls = type(x)
        self.kind = kind_by_type(self.cls) or classify(x)
        if self.kind is VARIABLE:
            self.metadata, self.value = x._metadata, x._storage.value
        else:
            self.opened = self.kind.flatten(x)

    def restore(self) -> None:
        """Restore the object to that state."""
        if type(self.x) is not self.cls:
            object.__setattr__(self.x, "__class__", self.cls)
        if self.kind is VARIABLE:
            set_metadata_past_checks(self.x, self.metadata)
            set_value_past_hooks(self.x, self.value)
        else:
            extra, keys, children = self.opened
            self.kind.fill(self.x, extra, keys, list(children))


def restore(former: Sequence[Former]) -> None:
    """Restore all objects, despite exceptions.

    Args:
      former: The states of the objects.
    """

    def undo() -> None:
        for state in former:
            state.restore()

    try:
        undo()
    except BaseException:  # a second exception, for example from a signal handler
        to_the_end(undo)
        raise


def all_or_nothing(
    objects: Iterable[Any], write: Callable[[], Any], finish: Callable[[], T] | None = None
) -> T | None:
    """Write to objects completely, or not at all.

    If an exception arrives meanwhile, for example from a signal handler, all is written before it is raised again. If
    it cannot be written, the objects are restored.

    Args:
      objects: The objects.
      write: Writes to them; repeatable.
      finish: Called after the write; if it raises, the objects are restored. The default, None, is nothing.

    Returns:
      The result of `finish`.
    """
    former = list(map(Former, objects))
    done: list[bool] = []

    def complete() -> None:
        write()
        done.append(True)

    try:
        to_the_end(complete)
        return None if finish is None else _finished(finish, done)
    except BaseException:
        if not done:
            restore(former)
        raise


def _finished(finish: Callable[[], T], done: list[bool]) -> T:
    """Return the result of `finish`; while it runs, the write does not count as done."""
    done.clear()
    result = finish()
    done.append(True)
    return result
