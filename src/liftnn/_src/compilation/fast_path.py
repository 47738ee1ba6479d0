"""The fast path of a compiled function: a repeated call with the same modules flattens nothing.

A `FastPath` belongs to one combination of a compiled function and the modules of one call. It knows:

- how to recognize the arguments (`patterns.py`);
- what the call depends on beside them: the *watch* of the modules and Variables, which ends with a change of their
  structure; static attributes that are known to vary; guards of what is captured; and checks of lists, dicts and other
  objects that cannot notify, element by element, by identity;
- the storages of the Variables, in the order in which the program takes their values;
- how to write back what the program returned (`write_back.py`).

`call` goes through all of this in loops. `generate.py` makes a function that does the same in straight-line code; that
is the one that is used, and `call` is what it is tested against.

Who keeps whom alive: the first module among the arguments owns the fast path, the compiled function refers to it
weakly, and the fast path refers to the arguments weakly. So a dead model frees its fast paths.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jax

from liftnn._src.compilation.dependencies import (
    Check,
    Reader,
    find_checks,
    find_readers,
    find_stored,
    find_varying,
)
from liftnn._src.compilation.generate import generate
from liftnn._src.compilation.patrol import Beat, late_error, plan_rounds
from liftnn._src.compilation.patterns import Patterns, Unmatched
from liftnn._src.compilation.source import MISS
from liftnn._src.compilation.write_back import Writer
from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.lift import Call
from liftnn._src.variables import frames
from liftnn._src.variables.watch import Watch, start_watch


class FastPath:
    """What a compiled function remembers of one call.

    Args:
      call: The call, flattened; of its arguments only weak references are kept.
      patterns: How its arguments are recognized.
      roots: The modules and Variables that are arguments themselves, by number.
      since: `changes.count` from before the walk.
      varying: Names of static attributes that are known to vary between calls.
      stored: The arguments stored in a partial; None if there is no partial.

    Raises:
      Unseen: If the arguments hold something whose changes cannot be seen.
    """

    def __init__(
        self,
        call: Call,
        patterns: Patterns,
        roots: Mapping[int, Any],
        since: int,
        varying: frozenset[str],
        stored: Any,
    ):
        self.writer = Writer(call, roots)
        self.patterns = patterns
        self.guards = call.guards
        self.varying = find_varying(call, varying)
        self.checks: list[Check] = [*find_checks(call), *find_stored(stored)]
        self.readers: list[Reader] = find_readers(call)
        self.rounds = plan_rounds(call, varying)
        self.array_type = next(
            (type(x) for x in call.leaves[: len(call.plan.variables)] if isinstance(x, jax.Array)), None
        )
        """The class of JAX's arrays in plain Python."""
        self.key = 0
        self.cache: Callable[[], Any] = _nothing
        self.owner: Callable[[], Any] = _nothing
        self._set_function(self.call)
        self.watch = start_watch(
            [x for x in call.objects if hasattr(type(x), "__graph_node__")], since, varying
        )
        self.watch.watcher = weakref.ref(self)
        self.report = functools.partial(_report, self.watch, self.writer.call, self.rounds)
        """Raises the error for an attribute that was written past `Module.__setattr__`, and ends the fast path."""

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Makes a call in loops.

        Args:
          args: The positional arguments, those of a bound method included.
          kwargs: The keyword arguments.

        Returns:
          The output, or `MISS`: then nothing has been done.
        """
        if not self.holds():
            return MISS
        try:
            units = self.patterns.match(args, kwargs)
        except Unmatched:
            return MISS
        return self.run(units)

    def generate(self) -> None:
        """Lets generated code make the calls, now that it is known what the program returns."""
        function = generate(self)
        if function is None:
            self.rounds = []
        self._set_function(function or self.call)

    def _set_function(self, function: Callable[[Any, Any], Any]) -> None:
        """Sets what makes the calls; a function of its own, since a bound method cannot be referred to weakly."""
        self.function = (
            function if isinstance(function, types.FunctionType) else _as_function(weakref.ref(self))
        )
        self.reference = weakref.ref(self.function)

    def holds(self) -> bool:
        """Whether everything that the call depends on is as it was."""
        if not self.watch.valid:
            return False
        try:
            return (
                all(attribute.holds() for attribute in self.varying)
                and (len(self.rounds) != 1 or all(beat.changed() is None for beat in self.rounds[0]))
                and all(check.holds() for check in self.checks)
                and self.guards.hold()
            )
        except Exception:  # another thread is changing one of the containers
            return False

    def run(self, units: list[Any]) -> Any:
        """Runs the program on trees of arrays, and writes back what it returns.

        Args:
          units: The trees of arrays among the arguments.

        Returns:
          The output, or `MISS`.
        """
        values = [storage.value for storage in self.writer.storages]
        units = units + [reader.read() for reader in self.readers]
        try:
            returned = self.writer.program.run_units(values, units)
        except (TypeError, frames.RetraceNeeded):  # what JAX cannot take, or has not traced yet
            return MISS
        return self.writer.commit(returned)

    def is_single(self, variable: Any) -> bool:
        """Whether a Variable stands in one place only."""
        number, graph = self._number_of(variable), self.writer.call.plan.graph
        edges = (graph.edges, *(spec.edges for spec in graph.specs))
        return number is not None and sum(type(e) is int and e == number for es in edges for e in es) == 1

    def follow(self, old: Any, new: Any) -> None:
        """Puts a Variable in the place of one alike."""
        number = self._number_of(old)
        if number is None:  # another thread was quicker
            self.watch.valid = False
            return
        self.writer.call.objects[number] = new
        self.writer.storages[self.writer.call.plan.index[Slot(number)]] = new._cell
        self.rounds = []
        self._set_function(self.call)  # the generated code has the old storages

    def _number_of(self, variable: Any) -> int | None:
        """The number of a Variable; None if it is not, or no longer, here."""
        slot = next((i for i, x in enumerate(self.writer.storages) if x is variable._cell), None)
        return None if slot is None else self.writer.call.plan.variables[slot]


def _report(watch: Watch, call: Call, rounds: Sequence[Sequence[Beat]]) -> NoReturn:
    watch.valid = False
    raise late_error(call, rounds)


def _nothing() -> None:
    """A reference to nobody."""


def _as_function(reference: Callable[[], FastPath | None]) -> Callable[[Any, Any], Any]:
    """`FastPath.call` as a function."""

    def call(args: Any, kwargs: Any) -> Any:
        path = reference()
        return MISS if path is None else path.call(args, kwargs)

    return call
