"""The fast path of calls without modules: it calls `jax.jit` directly while the guards hold."""

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
from liftnn._src.lifting.array_calls import ArrayCalls
from liftnn._src.lifting.offers import Begin, FastOffer, is_rejection, publish
from liftnn._src.variables.watch import Watch


class ArrayPath:
    """The fast path of a call without modules; see `FastPath`.

    Args:
      calls: The calls without modules of the compiled function.
      patterns: The patterns that match its arguments.
      guards: While they hold, the function captures no module.
      begin: Called when a trace begins; returns the function to call at its end.
    """

    def __init__(self, calls: ArrayCalls, patterns: Patterns, guards: Guards, begin: Begin):
        self.patterns = patterns
        self.guards = guards
        self.varying: list[Attribute] = []
        self.checks: list[Check] = []
        self.key = 0
        self.cache: Any = None
        self.owner: Callable[[], Any] = lambda: None
        self.captured: list[weakref.ref[Any]] = []
        self.watch = Watch()
        self._jitted = calls.transformed
        self.offer = FastOffer(calls.inside[0], begin=begin)
        self.generate()

    def generate(self) -> None:
        """Generate the function that makes the calls."""
        source = Source(self)
        if not match(source, []):
            self.function = self.call
            self.reference = lambda: self.function
            return
        source.miss_if(f"not {source.name(self.watch)}.valid")
        check(source)
        lines = ["try:", *(f"  {line}" for line in source.lines), "except Exception: return MISS"]
        lines += [
            f"try: return {source.name(self._jitted)}(*args, **kwargs)",
            "except Exception as error:",
            "  if is_rejection(error): return MISS",
            "  raise",
        ]
        self.function = build("args, kwargs", lines, source.constants)
        self.reference = weakref.ref(self.function)

    def holds(self) -> bool:
        """Return whether nothing that the call depends on has changed."""
        try:
            return self.watch.valid and self.guards.hold()
        except Exception:  # another thread is changing one of the containers
            return False

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Make a call; return `MISS` if it must take the slow path."""
        try:
            self.patterns.match(args, kwargs)
        except Unmatched:
            return MISS
        if not self.holds():
            return MISS
        try:
            with publish(self.offer):
                return self._jitted(*args, **kwargs)
        except Exception as error:
            if is_rejection(error):
                return MISS
            raise
