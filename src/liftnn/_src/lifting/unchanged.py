"""Detect and undo changes of captured objects: only the values of captured Variables may change."""

from __future__ import annotations

import collections
import types
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from liftnn import errors
from liftnn._src.captures.guards import NO_GUARDS, Guards
from liftnn._src.captures.snapshots import forget_cached, take_snapshots
from liftnn._src.graph.attributes import is_cached, slot_names
from liftnn._src.graph.checks import ABSENT
from liftnn._src.graph.kinds import (
    CELL,
    DATACLASS,
    DICT,
    FROZEN_DATACLASS,
    LIST,
    MODULE,
    PYTREE,
    VARIABLE,
    NodeKind,
)
from liftnn._src.instances import instance_dict
from liftnn._src.lifting.contract import Plan
from liftnn._src.lifting.leaks import find_leak
from liftnn._src.lifting.stored import undo_stored
from liftnn._src.trees import an
from liftnn._src.variables import frames
from liftnn._src.variables.watch import changes


class _NodeSnapshot(NamedTuple):
    """One captured object as it was before the call.

    Args:
      number: Its number.
      x: The object.
      kind: The kind of node, which flattens and fills it.
      flat: The static part, keys and children of the object.
    """

    number: int
    x: Any
    kind: NodeKind
    flat: tuple[Any, tuple[Any, ...], Sequence[Any]]


@contextmanager
def captured_unchanged(
    plan: Plan,
    originals: Sequence[Any],
    guards: Guards | None,
    frame: frames.Frame,
    functions: Sequence[Any],
) -> Generator[None]:
    """Undo changes of captured objects that cannot be propagated, and raise.

    Captured Variables are read and written through copies. All other captured objects (attributes, lists, plain
    objects, closure cells) are the live objects. Code that changes them does so once for each trace instead of once for
    each call, and may store tracers.

    Args:
      plan: The arguments.
      originals: The live objects by number.
      guards: The guards of the captured modules.
      frame: The frame in which the code runs.
      functions: The functions that run.

    Raises:
      TraceContextError: If a captured object was changed; it is restored first. A new value of a
        `functools.cached_property` is removed without an error.
    """
    numbers = [number for number in sorted(plan.captured) if number < len(originals)]
    since = changes.count - changes.exposed
    snapshots = take_snapshots(NO_GUARDS if guards is None else guards)
    swaps: list[_Swap] = []
    kept: list[_NodeSnapshot] = []
    changed: str | None = None
    try:
        for n in numbers:
            for swap in _find_numpy(originals[n], plan.graph.specs[n].kind):
                swaps.append(swap)
                _put(swap.x, swap.key, swap.copy)
        kept += filter(None, (_keep(n, originals[n], plan) for n in numbers))
        yield
    finally:
        stored = undo_stored(snapshots, frame, functions)
        for k in kept:
            if k.kind is MODULE and changes.count - changes.exposed != since and not _holds_traced(k, frame):
                continue  # another thread has changed a module, perhaps this one
            attribute = _restore(k)
            if attribute is not None and changed is None:
                changed = f"{plan.path_of(k.number)}{attribute} ({an(type(k.x))})"
        for swap in swaps:
            if swap.put_back():
                changed = changed or "A numpy array that a captured module holds"
        forget_cached(snapshots)
        broken = [snapshot for snapshot in snapshots if snapshot.leads and any(snapshot.changes())]
        for snapshot in broken:
            snapshot.restore()
        if broken and changed is None:
            changed = broken[0].describe()
    if stored is not None:
        raise stored
    if changed is not None:
        raise errors.TraceContextError(
            f"{changed} was changed in liftnn.{frame.name}. The function captures it, and only the values of captured "
            "Variables can be changed.",
            "Make it an attribute of a module if it is not one, and pass that module as an argument to the function "
            f"given to liftnn.{frame.name}.",
        )


class _Swap(NamedTuple):
    """A numpy array that a captured object holds, and the copy that replaces it while the function is traced.

    JAX caches a numpy constant by identity. So it would not see that the array has been changed in place since an
    earlier trace; a copy is a new constant for it.

    Args:
      x: The object.
      key: The key of the array in it.
      array: The array.
      copy: The copy.
    """

    x: Any
    key: Any
    array: np.ndarray
    copy: np.ndarray

    def put_back(self) -> bool:
        """Put the array back, unless the object holds something else by now; return whether the copy was changed."""
        if _get(self.x, self.key) is self.copy:
            _put(self.x, self.key, self.array)
        return self.copy.tobytes() != self.array.tobytes()


def _find_numpy(x: Any, kind: NodeKind) -> list[_Swap]:
    """Find the numpy arrays that an object holds, if it can be changed in place."""
    if kind not in (MODULE, LIST, DICT, DATACLASS, CELL):
        return []
    _, keys, children = kind.flatten(x)
    pairs = zip(keys, children, strict=True)
    return [_Swap(x, k, a, a.copy()) for k, a in pairs if type(a) is np.ndarray and not a.dtype.hasobject]


def _get(x: Any, key: Any) -> Any:
    """Return a child of an object, None if it has none under this key."""
    try:
        return x[key] if isinstance(x, _RESTORABLE) else object.__getattribute__(x, _attribute(x, key))
    except (LookupError, AttributeError, ValueError):
        return None


def _put(x: Any, key: Any, value: Any) -> None:
    """Set a child of an object, without a method of the user's and without invalidating a watch."""
    base: Any = next((base for base in _RESTORABLE if isinstance(x, base)), None)
    if base is None:
        object.__setattr__(x, _attribute(x, key), value)
    else:
        base.__setitem__(x, key, value)


def _attribute(x: Any, key: Any) -> str:
    """Return the attribute in which an object holds a child."""
    return "cell_contents" if type(x) is types.CellType else key


_RESTORABLE = (list, dict, collections.deque)


def _keep(number: int, x: Any, plan: Plan) -> _NodeSnapshot | None:
    """Record the current state of an object; None if it cannot be changed in place."""
    kind = plan.graph.specs[number].kind
    if kind is PYTREE:
        kind = _kind_in_place(x)
    elif kind is FROZEN_DATACLASS:  # a cached property sets attributes
        kind = DATACLASS
    if kind.frozen or kind is VARIABLE:
        return None
    return _NodeSnapshot(number, x, kind, kind.flatten(x))


def _kind_in_place(x: Any) -> NodeKind:
    """Return the kind by which code can change a registered pytree in place; PYTREE if there is none."""
    attributes = instance_dict(x)
    if isinstance(x, dict) and not attributes:  # such as a State
        return DICT
    return DATACLASS if attributes or slot_names(type(x)) else PYTREE


def _restore(kept: _NodeSnapshot) -> str | None:
    """Restore an object; return the changed attribute, an empty string if unnamed, or None if nothing was changed."""
    extra, keys, children = kept.kind.flatten(kept.x)
    old_extra, old_keys, old_children = kept.flat
    same = keys == old_keys and len(children) == len(old_children) and all(map(is_, children, old_children))
    if same and extra == old_extra:
        return None
    kept.kind.fill(kept.x, old_extra, old_keys, list(old_children))
    if kept.kind is not MODULE and kept.kind is not DATACLASS:
        return ""
    old, new = dict(zip(old_keys, old_children, strict=True)), dict(zip(keys, children, strict=True))
    names = [n for n in {**old, **new} if old.get(n, ABSENT) is not new.get(n, ABSENT)]
    names = [n for n in names if not (n not in old and is_cached(kept.x, n))]
    if not names:
        return None
    return f".{names[0]}" if kept.kind is MODULE else ""


def _holds_traced(kept: _NodeSnapshot, frame: frames.Frame) -> bool:
    """Return whether a module has a new attribute that only code in this frame can have set."""
    _, keys, children = kept.kind.flatten(kept.x)
    old = dict(zip(kept.flat[1], kept.flat[2], strict=True))
    new = [x for key, x in zip(keys, children, strict=True) if old.get(key, ABSENT) is not x]
    return any(find_leak(x, frame, True) is not None for x in new)
