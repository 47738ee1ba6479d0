"""Room on Python's stack for a trace, so that its time does not depend on how deep in the program it starts.

CPython keeps the frames of Python functions in chunks of 16 KiB. A call that does not fit gets a new chunk, which is
freed when the call returns. So a loop that makes its calls at the end of a chunk allocates and frees one for each call.
A trace calls many small functions from a deep stack and meets such a place easily: some took half as long again. A
function that declares a large stack of its own gets a large chunk, and what it calls finds room there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

CHUNK = 256 * 1024
"""The bytes of the chunk: a power of two, as CPython doubles its size until the first frame fits. Half is for the frame
of `call_with_room`, which never touches it, and half, some 500 frames, for what it calls."""


def call_with_room(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a function that traces, with room on the stack for the calls that it makes.

    It takes some 70 us, since memory is mapped and released while other threads run, so only the outermost trace is
    called in this way.

    Args:
      function: The function.
      args: Its positional arguments.
      kwargs: Its keyword arguments.

    Returns:
      Its result.
    """
    return function(*args, **kwargs)


_POINTER = 8
call_with_room.__code__ = call_with_room.__code__.replace(co_stacksize=CHUNK // 2 // _POINTER)
