"""Where a compiled function finds its fast paths, and who keeps them alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from liftnn._src.captures.guards import Guards
from liftnn._src.compilation.array_path import ArrayPath
from liftnn._src.compilation.dependencies import Unseen
from liftnn._src.compilation.fast_path import FastPath
from liftnn._src.compilation.patterns import OBJECTS, Unmatched, follow, make_patterns
from liftnn._src.compilation.source import MISS
from liftnn._src.lifting.contract import Plan
from liftnn._src.lifting.lift import Call
from liftnn._src.modules.module import Module
from liftnn._src.variables import frames

Path = FastPath | ArrayPath

_MOST = 32
"""How many fast paths one function has for one first module: for other static arguments, modes, other modules."""


class FastPaths:
    """The fast paths of one compiled function, by the identity of the first module among the arguments.

    That module owns the fast path; here it is referred to weakly. A fast path for arguments without a module is owned
    here; it holds no object of the user's but what the function captures, which the function holds too. When one of the
    modules dies the fast path is forgotten, before another object can have the same id.
    """

    __slots__ = ("__weakref__", "_arguments", "_owned", "by_module", "last", "locations", "varying")

    def __init__(self) -> None:
        self.by_module: dict[int, list[weakref.ref[Path]]] = {}
        """All fast paths, by the id of the first module; 0 if there is none."""
        self.last: Callable[[], Callable[..., Any] | None] = _nobody
        """The function of that one of them that was used last, weakly."""
        self.locations: list[tuple[Any, ...]] = []
        """Where the first module was found in calls up to now, but for the first positional argument."""
        self.varying: frozenset[str] = frozenset()
        """Names of static attributes that are known to vary."""
        self._owned: dict[int, list[Path]] = {}
        self._arguments: dict[int, tuple[Any, list[weakref.ref[Path]]]] = {}
        """The modules among the arguments by id, with the fast paths that end with each. The references are held here:
        where a module dies in a cycle with its fast paths, references held by those would die in silence."""

    def key_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        """The id of the first module among arguments; 0 if there is none."""
        if args and isinstance(args[0], OBJECTS):
            return id(args[0])
        for path in self.locations:
            x = follow(path, args, kwargs)
            if isinstance(x, OBJECTS):
                return id(x)
        return 0

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Makes a call by any of the fast paths that fits.

        Args:
          args: The positional arguments.
          kwargs: The keyword arguments.

        Returns:
          The output; `MISS` if none fits.
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
        self, call: Call, args: Sequence[Any], kwargs: Mapping[str, Any], since: int, stored: Any
    ) -> FastPath | None:
        """Makes a fast path for a call that was flattened just now.

        Args:
          call: The call.
          args: Its positional arguments, as they came.
          kwargs: Its keyword arguments.
          since: `changes.count` from before it was flattened.
          stored: The arguments stored in a partial; None if there is no partial.

        Returns:
          The fast path, or None if the arguments hold something whose changes could not be seen.
        """
        if any(isinstance(x, OBJECTS) and x._owner is not frames.PLAIN for x in call.objects):
            return None
        pairs = zip(call.plan.variables, call.leaves, strict=False)
        if any(value is not call.objects[number]._value for number, value in pairs):
            return None  # a value had to be encoded: it has leaves that JAX cannot take
        try:
            patterns = make_patterns(call.plan, args, kwargs)
            roots = {n: call.objects[n] for n in call.plan.argument_roots}
            path = FastPath(call, patterns, roots, since, self.varying, stored)
        except (Unseen, Unmatched):
            return None
        where = patterns.first_object()
        if where is not None and where != (0, 0) and where not in self.locations:
            self.locations.append(where)
        self._keep(path, self.key_of(args, kwargs), list(roots.values()))
        return path

    def add_arrays(
        self, plan: Plan, args: Sequence[Any], kwargs: Mapping[str, Any], guards: Guards, jitted: Any
    ) -> None:
        """Makes a fast path for a call without modules.

        Args:
          plan: The arguments.
          args: The positional arguments, as they came.
          kwargs: The keyword arguments.
          guards: Under which conditions the next call has no modules either.
          jitted: JAX's compiled function.
        """
        try:
            path = ArrayPath(jitted, make_patterns(plan, args, kwargs), guards)
        except Unmatched:
            return
        self._keep(path, 0, [])
        self.last = path.reference

    def _keep(self, path: Path, key: int, objects: list[Any]) -> None:
        """Gives a fast path to its owner, and sees to it that it ends with each of the arguments."""
        own = weakref.ref(path)
        path.cache, path.key = weakref.ref(self), key
        for x in objects:
            reference, paths = self._arguments.get(id(x)) or (weakref.ref(x, _forgetter(self, id(x))), [])
            self._arguments[id(x)] = (reference, [*(r for r in paths if r() is not None), own])
        owner = next((x for x in objects if isinstance(x, Module)), None)
        if owner is None:
            self._owned.setdefault(key, []).append(path)
        else:
            alive = [p for p in owner._fast_paths if p.watch.valid and p.cache() is not None]
            object.__setattr__(owner, "_fast_paths", (*alive, path))
            path.owner = weakref.ref(owner)
        known = [r for r in self.by_module.get(key, ()) if (p := r()) is not None and p.watch.valid]
        for reference in known[: len(known) + 1 - _MOST]:
            self._drop(reference())
        self.by_module[key] = [*known[-_MOST + 1 :], own]

    def settle(self, path: FastPath) -> None:
        """Generates the code of a fast path that has made its first call, and lets it be found."""
        path.generate()
        self.last = path.reference

    def _drop(self, path: Path | None) -> None:
        """Ends a fast path and takes it from its owner."""
        if path is None:
            return
        path.watch.valid = False
        path.watch.ended_by.clear()
        owner = path.owner()
        if owner is not None:
            object.__setattr__(owner, "_fast_paths", tuple([p for p in owner._fast_paths if p is not path]))
        self._owned[path.key] = [p for p in self._owned.get(path.key, ()) if p is not path]
        self.by_module[path.key] = [r for r in self.by_module.get(path.key, ()) if r() is not path]
        for found in (self._owned, self.by_module):
            if not found[path.key]:
                del found[path.key]

    def forget(self, address: int) -> None:
        """Ends the fast paths for a module that has died.

        Args:
          address: Its id.
        """
        _, paths = self._arguments.pop(address, (None, []))
        for reference in paths:
            self._drop(reference())
        self.by_module.pop(address, None)

    def __del__(self) -> None:
        """A function that is dropped takes its fast paths from the modules that own them, and what they hold."""
        self.clear()

    def clear(self) -> None:
        """Forgets all fast paths."""
        for reference in [r for paths in self.by_module.values() for r in paths]:
            self._drop(reference())
        self.by_module.clear()
        self.last = _nobody
        self._arguments.clear()


def _nobody() -> None:
    """A reference to no fast path."""


def _forgetter(paths: FastPaths, address: int) -> Callable[[Any], None]:
    """Called when a module among the arguments has died."""
    cache = weakref.ref(paths)

    def forget(_: Any) -> None:
        found = cache()
        if found is not None:
            found.forget(address)

    return forget
