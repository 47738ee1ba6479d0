"""The fast path of calls without modules: they are JAX's, if nothing has changed that could lead to a module."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from liftnn._src.captures.guards import Guards
from liftnn._src.compilation.conditions import check, match
from liftnn._src.compilation.dependencies import Attribute
from liftnn._src.compilation.patterns import Patterns, Unmatched
from liftnn._src.compilation.source import MISS, Source, build
from liftnn._src.graph.checks import Check
from liftnn._src.variables import frames
from liftnn._src.variables.watch import Watch


class ArrayPath:
    """What a compiled function remembers of a call without modules; see `FastPath`.

    Args:
      jitted: JAX's compiled function.
      patterns: Which kinds of arguments it is called with.
      guards: Under which conditions no module is captured.
    """

    def __init__(self, jitted: Callable[..., Any], patterns: Patterns, guards: Guards):
        self.patterns = patterns
        self.guards = guards
        self.varying: list[Attribute] = []
        self.checks: list[Check] = []
        self.key = 0
        self.cache: Any = None
        self.owner: Callable[[], Any] = lambda: None
        self.watch = Watch()
        self._jitted = jitted
        self.generate()

    def generate(self) -> None:
        """Makes the function that makes the calls."""
        source = Source(self)
        if not match(source, []):
            self.function = self.call
            self.reference = lambda: self.function
            return
        source.miss_if(f"not {source.name(self.watch)}.valid")
        check(source)
        lines = ["try:", *(f"  {line}" for line in source.lines), "except CHANGED: return MISS"]
        lines += [
            f"try: return {source.name(self._jitted)}(*args, **kwargs)",
            "except (TypeError, ValueError, RetraceNeeded): return MISS",
        ]
        self.function = build("args, kwargs", lines, source.constants)
        self.reference = weakref.ref(self.function)

    def holds(self) -> bool:
        """Whether everything that the call depends on is as it was."""
        try:
            return self.watch.valid and self.guards.hold()
        except Exception:  # another thread is changing one of the containers
            return False

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Makes a call; `MISS` if it has to be made in the general way."""
        try:
            self.patterns.match(args, kwargs)
            return self._jitted(*args, **kwargs) if self.holds() else MISS
        except (TypeError, ValueError, Unmatched, frames.RetraceNeeded):
            return MISS
