"""The fast path of a compiled function: a repeated call with the same modules flattens nothing.

A `FastPath` belongs to one combination of a compiled function and the modules of one call. It holds:

- the patterns that match the arguments (`patterns.py`);
- the other dependencies of the call: the *watch* of the modules and Variables, which a change of their structure
  invalidates; varying attributes; guards of captured modules; and checks by identity, element by element, of lists,
  dicts and other objects whose changes liftnn cannot observe (`dependencies.py`);
- the storages of the Variables, in the order in which the program takes their values;
- the write-back of the program's results (`write_back.py`).

`call` checks and runs all of this in loops. `generate.py` generates a function that does the same in straight-line
code. The generated function is used in production, and tests compare it with `call`.

Lifetimes: the first module among the arguments owns the fast path. The compiled function refers to the fast path
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
    find_containers,
    find_readers,
    find_static,
    find_stored,
    find_varying,
)
from liftnn._src.compilation.generate import generate
from liftnn._src.compilation.kept_shardings import find_moves
from liftnn._src.compilation.patrol import Beat, has_changed, late_error, plan_rounds
from liftnn._src.compilation.patterns import Patterns, Unmatched
from liftnn._src.compilation.source import MISS, end
from liftnn._src.compilation.write_back import Writer
from liftnn._src.graph.checks import Attributes
from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.call import Call
from liftnn._src.lifting.offers import Begin, FastOffer, is_rejection, publish
from liftnn._src.variables.watch import Watch, start_watch


class FastPath:
    """The fast path of one combination of a compiled function and modules.

    Args:
      call: The flattened call; only weak references to `roots` are kept.
      patterns: The patterns that match its arguments.
      roots: The modules and Variables that must not be kept alive, by number: the arguments themselves, and what only
        weak references reach.
      since: The value of `changes.count` before the arguments were flattened.
      varying: The names of static attributes that vary between calls.
      stored: The arguments stored in a partial; None if there is no partial.
      begin: Called when a trace begins; returns the function to call at its end.

    Raises:
      Unseen: If the changes of an object in the arguments can be neither observed nor checked.
    """

    def __init__(
        self,
        call: Call,
        patterns: Patterns,
        roots: Mapping[int, Any],
        since: int,
        varying: frozenset[str],
        stored: Any,
        begin: Begin,
    ):
        self.writer = Writer(call, roots)
        self.offer = FastOffer(call.plan, self.writer.objects, call.guards, begin)
        self.patterns = patterns
        self.guards = call.guards
        self.varying = find_varying(call, varying)
        values = [storage.value for storage in self.writer.storages]
        self.placement = self.writer.program.placement(values)
        """The placement of the Variables, if there is one to keep."""
        storages = self.writer.storages
        others = [*find_containers(storages), *find_static(storages), *find_moves(storages)]
        self.checks: list[Check] = [*find_checks(call), *find_stored(stored), *others]
        self.readers: list[Reader] = find_readers(call, roots)
        self.rounds = plan_rounds(call, varying, roots)
        self.array_types: list[type | None] = [
            type(x) if isinstance(x, jax.Array) else None for x in call.leaves[: len(call.plan.variables)]
        ]
        """For each storage the class of its value: arrays or typed keys, as opposed to tracers; None for a tree."""
        self.key = 0
        self._generated: types.FunctionType | None = None
        self.cache: Callable[[], Any] = _nothing
        self.owner: Callable[[], Any] = _nothing
        self.captured: list[weakref.ref[Any]] = []
        self._set_function(_as_function(weakref.ref(self), FastPath.call))
        self.watch = start_watch(
            self, [x for x in call.objects if hasattr(type(x), "__graph_node__")], since, varying
        )
        self.report = functools.partial(_report, self.watch, self.writer.call, self.rounds)
        """Raises the error for an attribute that was set without `Module.__setattr__`, and ends the fast path."""

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Make a call, in loops.

        Args:
          args: The positional arguments, including the module of a bound method.
          kwargs: The keyword arguments.

        Returns:
          The output, or `MISS` if the fast path does not apply; then the call has had no effect.
        """
        if not self.holds():
            return MISS
        try:
            units = self.patterns.match(args, kwargs)
        except Unmatched:
            return MISS
        if len(self.rounds) > 1 and any(map(has_changed, self.rounds)):
            self.report()
        return self.run(units)

    def generate_later(self) -> None:
        """Let the next call generate the code: it takes some milliseconds, and many functions are called only once."""
        self._set_function(_as_function(weakref.ref(self), FastPath._generate_and_call))

    def _generate_and_call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        self.generate()
        return self.function(args, kwargs)

    def generate(self) -> None:
        """Generate the code of the call; the first call has shown which result the program returns."""
        self._generated = generate(self)
        if self._generated is None:
            self._use_loops()
        else:
            self._set_function(self._generated)

    def _use_loops(self) -> None:
        """Make the next calls with `call`."""
        self._generated = None
        self._set_function(_as_function(weakref.ref(self), FastPath.call))

    def _set_function(self, function: Callable[[Any, Any], Any]) -> None:
        """Set the function that makes the calls; not a bound method, since a weak reference to one dies at once."""
        self.function = function
        self.reference = weakref.ref(function)

    def holds(self) -> bool:
        """Return whether nothing that the call depends on has changed."""
        if not self.watch.valid:
            return False
        try:
            return (
                all(attribute.holds() for attribute in self.varying)
                and not (len(self.rounds) == 1 and has_changed(self.rounds[0]))
                and all(check.holds() for check in self.checks)
                and self.guards.hold()
            )
        except Exception:  # another thread is changing one of the containers
            return False

    def run(self, units: list[Any]) -> Any:
        """Run the program on trees of arrays, and write back its result.

        Args:
          units: The trees of arrays among the arguments.

        Returns:
          The output, or `MISS`.
        """
        values = [storage.value for storage in self.writer.storages]
        units = units + [reader.read() for reader in self.readers]
        writer, done = self.writer, []
        try:
            try:
                with publish(self.offer):
                    returned = writer.program.run_units(values, units, done)
            except Exception as error:
                if not done and is_rejection(error):
                    return MISS
                raise
            return writer.commit(returned)
        except BaseException:
            if done and writer.program.donates:
                writer.commit(done[0])
            raise

    def has_only_at(self, variable: Any, holder: Any, name: str) -> bool:
        """Return whether a Variable occurs only once in the call: as an attribute of a module."""
        number, graph = self._number_of(variable), self.writer.call.plan.graph
        if number is None or graph.references.count(number) != 1:
            return False
        nodes = zip(self.writer.objects(), graph.specs, strict=True)
        return any(
            x is holder and dict(zip(s.keys, s.edges, strict=True)).get(name) == number for x, s in nodes
        )

    def follow(self, old: Any, new: Any) -> None:
        """Replace a Variable by a new one of the same class and metadata."""
        number = self._number_of(old)
        if number is None:  # another thread has replaced it first
            self.watch.valid = False
            return
        self.writer.call.objects[number] = new
        self.writer.storages[self.writer.call.plan.index[Slot(number)]] = new._storage
        for beats in self.rounds:
            for beat in beats:
                beat.follow(old, new)
        self.checks = [x.follow(old, new) if isinstance(x, Attributes) else x for x in self.checks]
        if self._generated is not None:
            end(self._generated)  # it has the old storages
        self._use_loops()

    def _number_of(self, variable: Any) -> int | None:
        """Return the number of a Variable; None if the call does not have it (any more)."""
        slot = next((i for i, x in enumerate(self.writer.storages) if x is variable._storage), None)
        return None if slot is None else self.writer.call.plan.variables[slot]


def _report(watch: Watch, call: Call, rounds: Sequence[Sequence[Beat]]) -> NoReturn:
    watch.valid = False
    raise late_error(call, rounds)


def _nothing() -> None:
    """Return None, like a dead weak reference."""


def _as_function(
    reference: Callable[[], FastPath | None], method: Callable[[FastPath, Any, Any], Any]
) -> Callable[[Any, Any], Any]:
    """Wrap a method of a fast path in a function that does not keep the fast path."""

    def call(args: Any, kwargs: Any) -> Any:
        path = reference()
        return MISS if path is None else method(path, args, kwargs)

    return call
