"""A compiled function that moves its arguments to its devices, as `jax.pmap` does; `jax.jit` raises instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

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
        if self._is_needed:
            return self._jitted(*self._move(arguments))
        try:  # JAX itself places arrays of no chosen device, in a fifth of the time
            return self._jitted(*arguments)
        except ValueError:  # JAX has no class for arguments on incompatible devices; nothing is donated yet
            moved = self._move(arguments)
            if all(x is y for x, y in zip(*map(jax.tree.leaves, (moved, arguments)), strict=True)):
                raise
        self._is_needed = True
        return self._jitted(*moved)

    def trace(self, *arguments: Any) -> Any:
        """Return JAX's traced stage."""
        return self._jitted.trace(*self._move(arguments))
