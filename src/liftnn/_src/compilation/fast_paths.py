"""The cache of a compiled function's fast paths: lookup, ownership and eviction."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from liftnn._src.captures.guards import Guards
from liftnn._src.compilation.array_path import ArrayPath
from liftnn._src.compilation.dependencies import Unseen, find_lent
from liftnn._src.compilation.fast_path import FastPath
from liftnn._src.compilation.patterns import OBJECTS, Unmatched, follow, make_patterns
from liftnn._src.compilation.source import MISS
from liftnn._src.lifting.array_calls import ArrayCalls
from liftnn._src.lifting.call import Call, has_truncated
from liftnn._src.lifting.contract import Plan
from liftnn._src.lifting.offers import Begin
from liftnn._src.modules.module import Module
from liftnn._src.variables import frames

CallPath = FastPath | ArrayPath

_MOST_FAST_PATHS = 32
"""The maximum number of fast paths of one function for one first module; they differ in static arguments, modes and
other modules."""


class FastPaths:
    """The fast paths of one compiled function, by the identity of the first module among the arguments.

    A module owns its fast paths, and `FastPaths` refers to them weakly: a captured module, since a fast path refers to
    what is captured, and both die when nothing else refers to the module; the one that is replaced by another one, as
    soon as this is known. Without a captured module, the first module among the arguments owns it. `FastPaths` owns the
    fast paths of calls without a module. When one of the arguments dies, its fast paths are dropped before another
    object can get the same id.
    """

    __slots__ = ("__weakref__", "_arguments", "_owned", "by_module", "last", "locations", "varying")

    def __init__(self) -> None:
        self.by_module: dict[int, list[weakref.ref[CallPath]]] = {}
        """All fast paths, by the id of the first module, or 0 without a module."""
        self.last: Callable[[], Callable[..., Any] | None] = _nobody
        """A weak reference to the function of the most recently used fast path."""
        self.locations: list[tuple[Any, ...]] = []
        """The positions of the first module in earlier calls, other than the first positional argument."""
        self.varying: frozenset[str] = frozenset()
        """The names of static attributes that vary between calls."""
        self._owned: dict[int, list[CallPath]] = {}
        self._arguments: dict[int, tuple[Any, list[weakref.ref[CallPath]]]] = {}
        """The modules among the arguments by id, each with its fast paths. The weak references are kept here: if a
        module dies in a reference cycle with its fast paths, references kept there would die without a callback."""

    def key_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        """Return the id of the first module among the arguments; 0 if there is none."""
        if args and isinstance(args[0], OBJECTS):
            return id(args[0])
        for path in self.locations:
            x = follow(path, args, kwargs)
            if isinstance(x, OBJECTS):
                return id(x)
        return 0

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Make a call with the first fast path that applies.

        Args:
          args: The positional arguments.
          kwargs: The keyword arguments.

        Returns:
          The output; `MISS` if no fast path applies.
        """
        key = self.key_of(args, kwargs)
        for reference in reversed(self.by_module.get(key, ())):
            path = reference()
            if path is None:
                continue
            if path.watch.ended_by:
                self.varying |= path.watch.ended_by
            out = path.function(args, kwargs)
            if out is not MISS:
                self.last = path.reference
                return out
        return MISS

    def add(
        self,
        call: Call,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        since: int,
        stored: Any,
        begin: Begin,
    ) -> FastPath | None:
        """Add a fast path for a call that has just been flattened.

        Args:
          call: The call.
          args: Its positional arguments.
          kwargs: Its keyword arguments.
          since: The value of `changes.count` before it was flattened.
          stored: The arguments stored in a partial; None if there is no partial.
          begin: Called when a trace begins; returns the function to call at its end.

        Returns:
          The fast path; None if only the slow path can make the call.
        """
        if any(isinstance(x, OBJECTS) and x._owner is not frames.PLAIN for x in call.objects):
            return None
        if len(call.guards.weak) > 1:
            return None  # it would keep all of them alive but its owner
        if call.bound.donates and has_truncated(call.leaves):
            return None  # only the slow path keeps numpy arrays that JAX truncates
        pairs = zip(call.plan.variables, call.leaves, strict=False)
        if any(value is not call.objects[number]._value for number, value in pairs):
            return None  # an encoded value: it has leaves that JAX does not accept
        try:
            patterns = make_patterns(call.plan, args, kwargs)
            roots = {n: call.objects[n] for n in find_lent(call.plan)}
            path = FastPath(call, patterns, roots, since, self.varying, stored, begin)
        except (Unseen, Unmatched):
            return None
        where = patterns.first_object()
        if where is not None and where != (0, 0) and where not in self.locations:
            self.locations.append(where)
        captured = [
            call.objects[n] for n in call.plan.captured if n not in call.plan.passed and n not in roots
        ]
        captured.sort(key=lambda x: id(x) not in call.guards.weak)  # the owner may die
        self._keep(path, self.key_of(args, kwargs), list(roots.values()), captured)
        return path

    def add_arrays(
        self,
        plan: Plan,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        guards: Guards,
        calls: ArrayCalls,
        begin: Begin,
    ) -> None:
        """Add a fast path for a call without modules.

        Args:
          plan: The arguments.
          args: The positional arguments.
          kwargs: The keyword arguments.
          guards: While they hold, the next call captures no modules either.
          calls: The calls without modules of the compiled function.
          begin: Called when a trace begins; returns the function to call at its end.
        """
        try:
            path = ArrayPath(calls, make_patterns(plan, args, kwargs), guards, begin)
        except Unmatched:
            return
        self._keep(path, 0, [], [])
        self.last = path.reference

    def _keep(self, path: CallPath, key: int, objects: list[Any], captured: list[Any]) -> None:
        """Give a fast path to its owner, and drop it when one of the modules dies.

        Args:
          path: The fast path.
          key: The id of the first module; 0 without one.
          objects: The objects that it must not keep alive.
          captured: The captured objects. The fast path refers to them, so it must die with the one that owns it.
        """
        path_reference = weakref.ref(path)
        path.cache, path.key = weakref.ref(self), key
        for x in objects:
            reference, paths = self._arguments.get(id(x)) or (weakref.ref(x, _forgetter(self, id(x))), [])
            self._arguments[id(x)] = (reference, [*(r for r in paths if r() is not None), path_reference])
        modules = [x for x in captured if isinstance(x, Module)]
        path.captured = [weakref.ref(x) for x in modules]
        self._give(path, next((x for x in (*modules, *objects) if isinstance(x, Module)), None))
        known = [r for r in self.by_module.get(key, ()) if (p := r()) is not None and p.watch.valid]
        for reference in known[: len(known) + 1 - _MOST_FAST_PATHS]:
            self._drop(reference())
        ids = set(map(id, modules))
        for reference in known:
            self._give_to_replaced(reference(), ids)
        self.by_module[key] = [*known[-_MOST_FAST_PATHS + 1 :], path_reference]

    def _give(self, path: CallPath, owner: Module | None) -> None:
        """Let a module own a fast path; without one, the function owns it."""
        if owner is None:
            self._owned.setdefault(path.key, []).append(path)
            return
        alive = [p for p in owner._fast_paths if p.watch.valid and p.cache() is not None]
        object.__setattr__(owner, "_fast_paths", (*alive, path))
        path.owner = weakref.ref(owner)

    def _take(self, path: CallPath) -> None:
        """Take a fast path from its owner."""
        owner = path.owner()
        if owner is not None:
            object.__setattr__(owner, "_fast_paths", tuple([p for p in owner._fast_paths if p is not path]))
        self._owned[path.key] = [p for p in self._owned.get(path.key, ()) if p is not path]
        if not self._owned[path.key]:
            del self._owned[path.key]

    def _give_to_replaced(self, path: CallPath | None, captured: set[int]) -> None:
        """Let a captured module own a fast path if another one has taken its place, so that both can die.

        Args:
          path: A fast path.
          captured: The ids of the modules that the latest call captures.
        """
        if path is None or not path.watch.valid:
            return
        replaced = (
            x for reference in path.captured if (x := reference()) is not None and id(x) not in captured
        )
        first = next(replaced, None)
        if first is not None and path.owner() is not first:
            self._take(path)
            self._give(path, first)

    def _drop(self, path: CallPath | None) -> None:
        """End a fast path and remove it from its owner."""
        if path is None:
            return
        path.watch.valid = False
        path.watch.ended_by.clear()
        self._take(path)
        self.by_module[path.key] = [r for r in self.by_module.get(path.key, ()) if r() is not path]
        if not self.by_module[path.key]:
            del self.by_module[path.key]

    def forget(self, address: int) -> None:
        """Drop the fast paths of a module that has died.

        Args:
          address: The id of the module.
        """
        _, paths = self._arguments.pop(address, (None, []))
        for reference in paths:
            self._drop(reference())
        self.by_module.pop(address, None)

    def __del__(self) -> None:
        """Remove the fast paths from the modules that own them when the compiled function is dropped."""
        self.clear()

    def clear(self) -> None:
        """Drop all fast paths."""
        for reference in [r for paths in self.by_module.values() for r in paths]:
            self._drop(reference())
        self.by_module.clear()
        self.last = _nobody
        self._arguments.clear()


def _nobody() -> None:
    """Return None, like a dead weak reference."""


def _forgetter(paths: FastPaths, address: int) -> Callable[[Any], None]:
    """Return the callback for the death of a module among the arguments."""
    cache = weakref.ref(paths)

    def forget(_: Any) -> None:
        found = cache()
        if found is not None:
            found.forget(address)

    return forget
