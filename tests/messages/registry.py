"""Where each case notes the error that it raises, with the whole text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Message:
    """One way to get an error.

    Args:
      cls: The class of the error.
      text: All of its text.
      cause: Called without arguments; raises it.
    """

    cls: type
    text: str
    cause: Callable[[], object]


MESSAGES: dict[str, Message] = {}
"""Every message by the name of its case."""


def message(cls: type, *lines: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Registers a function that raises an error with these lines; the last one says what to do."""

    def register(cause: Callable[[], object]) -> Callable[[], object]:
        assert cause.__name__ not in MESSAGES
        MESSAGES[cause.__name__] = Message(cls, "\n".join(lines), cause)
        return cause

    return register
