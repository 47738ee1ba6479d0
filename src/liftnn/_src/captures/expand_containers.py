"""The children of a list, tuple, set, deque or dict in the search for captured modules."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from liftnn._src.captures.guards import ELEMENT, ITEM, SIZE, SLOT, Guard, GuardKind
from liftnn._src.captures.steps import Expansion, Step
from liftnn._src.graph.checks import (
    ATOMS,
    ITERATORS,
    Elements,
    is_atom,
    list_entries,
    read_elements,
    size_of,
    split_entries,
)
from liftnn._src.graph.containers import base_of, default_factory

_MOST_LOOKED = 100_000
"""The maximum number of elements of one container to look at."""
_MOST_IN_ONE = 1_000
"""The maximum number of elements of a long container to follow; atoms do not count."""
_MOST_GUARDED = 64
"""The maximum number of elements to guard one by one; of a longer container without modules the size is guarded."""


def expand_elements(base: type, x: Any, exact: bool) -> Expansion:
    """Expand a list, tuple, set, frozenset or deque, or an object of a class that derives from it."""
    size, tag, iterate = size_of(x), base.__name__, ITERATORS[base]
    if size > _MOST_GUARDED:
        kind = ELEMENT if type(x) in (list, collections.deque) else None
        looked = read_elements(lambda x: itertools.islice(iterate(x), _MOST_LOOKED), x)
        return _expand_long(tag, x, size, enumerate(looked), kind, iterate)
    kept = read_elements(iterate, x)
    steps = [Step(y, f"[{i}]", i) for i, y in enumerate(kept)]
    if tag in ("tuple", "frozenset"):
        return Expansion(tag, steps)
    loose = tuple([is_atom(y) and not exact for y in kept])
    return Expansion(tag, steps, elements=Elements(x, iterate, kept, loose, len(kept)), always=True)


def expand_dict(x: Any, exact: bool) -> Expansion:
    """Expand a dict."""
    size = size_of(x)
    if size > _MOST_GUARDED:
        entries = zip(*split_entries(read_elements(_first_entries, x)), strict=True)
        return _expand_long("dict", x, size, entries, ITEM if type(x) is dict else None, list_entries)
    elements = entries_of(x, exact)
    keys, values = split_entries(elements.kept)
    steps = [Step(v, _label_of(k), _key_of(i, k)) for i, (k, v) in enumerate(zip(keys, values, strict=True))]
    steps += [Step(k, "", ("key", i)) for i, k in enumerate(keys) if not is_atom(k)]
    if issubclass(type(x), collections.defaultdict):
        factory = x.default_factory
        guard = Guard(SLOT, x, default_factory, factory)
        steps.append(Step(factory, ".default_factory", "default_factory", guard))
    return Expansion("dict", steps, elements=elements, always=True)


def _first_entries(x: dict[Any, Any]) -> Iterable[Any]:
    """Return the keys of a dict, then its values, as many as the search looks at."""
    base = base_of(type(x))
    views = base.keys(x), base.values(x)
    return itertools.chain(*[itertools.islice(view, _MOST_LOOKED) for view in views])


def entries_of(x: dict[Any, Any], exact: bool) -> Elements:
    """Return the guard of all keys and values of a dict."""
    kept = read_elements(list_entries, x)
    keys, values = split_entries(kept)
    loose = (*[False] * len(keys), *[is_atom(value) and not exact for value in values])
    return Elements(x, list_entries, kept, loose, len(keys))


def _expand_long(
    tag: str,
    x: Any,
    size: int,
    entries: Iterable[tuple[Any, Any]],
    kind: GuardKind | None,
    iterate: Callable[[Any], Iterable[Any]],
) -> Expansion:
    """Expand a long container: follow only non-atoms; guard the size, and what leads to a module.

    If an element leads to a module, all elements are guarded together, with their order. Of a very long list or dict,
    only the elements that lead to a module are.
    """
    others = ((k, y) for k, y in entries if type(y) not in ATOMS and not is_atom(y))
    found = list(itertools.islice(others, _MOST_IN_ONE))
    size_guard = (Guard(SIZE, x, None, size),)
    one_by_one = size > _MOST_IN_ONE and kind is not None and all(_is_plain(key) for key, _ in found)
    steps = [
        Step(y, _label_of(key), _key_of(i, key), Guard(kind, x, key, y) if one_by_one and kind else None)
        for i, (key, y) in enumerate(found)
    ]
    if one_by_one or not found or tag in ("tuple", "frozenset"):
        return Expansion(tag, steps, size_guard, quiet=True, whole=x if one_by_one else None, size=size)
    kept = read_elements(iterate, x)
    elements = Elements(x, iterate, kept, tuple(map(is_atom, kept)), size)
    return Expansion(tag, steps, size_guard, elements, quiet=True, size=size)


def _is_plain(key: Any) -> bool:
    return type(key) in (str, int, bool)


def _label_of(key: Any) -> str:
    """Return the label of a dict entry; `[...]` for keys with a `repr` that could run user code."""
    return f"[{key!r}]" if _is_plain(key) else "[...]"


def _key_of(position: int, key: Any) -> Hashable:
    return (type(key), key) if _is_plain(key) else position
