"""A compiled function that moves its arguments to its devices, as `jax.pmap` does; `jax.jit` raises instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Move = Callable[[Sequence[Any]], Sequence[Any]]
"""Takes the dynamic leaves of a call, and returns them on the devices of the program."""


class Moved:
    """A function compiled by `jax.jit` whose arguments are moved if they are on other devices.

    Args:
      jitted: The function.
      move: Takes the arguments, and returns them on the devices of the program.
    """

    def __init__(self, jitted: Any, move: Move):
        self._jitted = jitted
        self._move = move
        self._is_needed = False
        self.clear_cache = jitted.clear_cache
        self._cache_size = jitted._cache_size

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        if not self._is_needed:  # JAX itself places arrays of no chosen device, in a fifth of the time
            try:
                return self._jitted(*arguments)
            except ValueError as error:
                if _INCOMPATIBLE not in str(error):
                    raise
            self._is_needed = True
        return self._jitted(*self._move(arguments))

    def trace(self, *arguments: Any) -> Any:
        """Return JAX's traced stage."""
        return self._jitted.trace(*self._move(arguments))


_INCOMPATIBLE = "incompatible devices"
"""Part of JAX's error for arguments on other devices; it is raised before any buffer is donated."""
