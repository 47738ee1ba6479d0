"""What is captured may change in the values of Variables only: all other changes are undone, and raise."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from liftnn import errors
from liftnn._src.captures.expand import instance_dict
from liftnn._src.captures.guards import Guard, Guards
from liftnn._src.graph.checks import ABSENT, Elements
from liftnn._src.graph.kinds import DATACLASS, MODULE, PYTREE, VARIABLE, NodeKind
from liftnn._src.lifting.contract import Plan
from liftnn._src.lifting.leaks import find_held
from liftnn._src.trees import an, at_start
from liftnn._src.variables import frames
from liftnn._src.variables.watch import changes


class _Kept(NamedTuple):
    """One captured object as it was before the call.

    Args:
      number: Its number.
      x: The object.
      kind: How it is flattened.
      flat: Its static extra, keys and children.
    """

    number: int
    x: Any
    kind: NodeKind
    flat: tuple[Any, tuple[Any, ...], Sequence[Any]]


@contextmanager
def captured_unchanged(
    plan: Plan, originals: Sequence[Any], guards: Guards | None, frame: frames.Frame
) -> Generator[None]:
    """Undoes changes of captured objects that cannot be propagated, and refuses them.

    A captured Variable is read and written through its copy. Everything else that is captured is read where it stands:
    attributes, lists, plain objects, the cells of closures. What code does there it does to the live objects, once for
    each trace instead of once for each call, and perhaps with tracers.

    Args:
      plan: The arguments.
      originals: The live objects by number.
      guards: How the captured modules were found.
      frame: The frame in which the code runs.

    Raises:
      TraceContextError: If one was changed; it is as it was before. A `functools.cached_property` is only reset.
    """
    kept = [
        _keep(number, originals[number], plan) for number in sorted(plan.captured) if number < len(originals)
    ]
    kept, since = [k for k in kept if k is not None], changes.count - changes.exposed
    arrays = [(x, x.copy()) for k in kept for x in k.flat[2] if isinstance(x, np.ndarray)]
    changed: str | None = None
    try:
        yield
    finally:
        for k in kept:
            if k.kind is MODULE and changes.count - changes.exposed != since and not _holds_traced(k, frame):
                continue  # another thread has changed some module, perhaps this one, in the ways that are noticed
            attribute = _restore(k)
            if attribute is not None and changed is None:
                changed = f"{plan.path_of(k.number)}{attribute} ({an(type(k.x))})"
        for x, copy in arrays:
            if x.tobytes() != copy.tobytes():
                x[...] = copy
                changed = changed or "A numpy array that a captured module holds"
        broken = guards.restore() if guards is not None else []
        if broken and changed is None:
            changed = _words(broken[0])
    if changed is not None:
        raise errors.TraceContextError(
            f"{changed} was changed in liftnn.{frame.name}, which it reached through a closure, where only values of "
            "Variables can be changed.",
            f"Pass the module that holds it as an argument of the function given to liftnn.{frame.name}.",
        )


def _keep(number: int, x: Any, plan: Plan) -> _Kept | None:
    """An object as it is now, if it can be changed in place."""
    kind = plan.graph.specs[number].kind
    if kind is PYTREE and instance_dict(x):  # it is built from its children, but its attributes can be set
        return _Kept(number, x, DATACLASS, DATACLASS.flatten(x))
    if kind.frozen or kind is VARIABLE:
        return None
    return _Kept(number, x, kind, kind.flatten(x))


def _restore(kept: _Kept) -> str | None:
    """Puts an object back as it was; gives which part was changed, None if none was that matters."""
    extra, keys, children = kept.kind.flatten(kept.x)
    old_extra, old_keys, old_children = kept.flat
    same = keys == old_keys and len(children) == len(old_children) and all(map(is_, children, old_children))
    if same and extra == old_extra:
        return None
    kept.kind.fill(kept.x, old_extra, old_keys, list(old_children))
    if kept.kind is not MODULE:
        return ""
    old, new = dict(zip(old_keys, old_children, strict=True)), dict(zip(keys, children, strict=True))
    names = [n for n in {**old, **new} if old.get(n, ABSENT) is not new.get(n, ABSENT)]
    names = [n for n in names if not (n not in old and _is_cached(kept.x, n))]
    return f".{names[0]}" if names else None


def _holds_traced(kept: _Kept, frame: frames.Frame) -> bool:
    """Whether a module has an attribute that can only come from the code that has run in a frame."""
    _, keys, children = kept.kind.flatten(kept.x)
    old = dict(zip(kept.flat[1], kept.flat[2], strict=True))
    new = [x for key, x in zip(keys, children, strict=True) if old.get(key, ABSENT) is not x]
    return any(find_held(x, frame, True) is not None for x in new)


def _is_cached(x: Any, name: str) -> bool:
    """Whether an attribute is the value of a cached property, which is computed again when it is gone."""
    return isinstance(inspect.getattr_static(type(x), name, None), functools.cached_property)


def _words(guard: Guard | Elements) -> str:
    """What a guard is about."""
    if isinstance(guard, Elements):
        return f"{at_start(an(type(guard.container)))} that holds captured modules"
    if guard.kind.name == "cell":
        return "A variable that holds captured modules"
    name = getattr(guard.key, "__name__", guard.key)
    return f"{f'{name!r}' if name is not None else f'A {guard.kind.name}'} that holds captured modules"
