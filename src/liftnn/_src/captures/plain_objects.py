"""The content of plain objects in modules: instances of the user's classes that are static values.

Such an object is compared by identity or by its own `==`, so a change in place would go unnoticed. Its content is
compared too: the attributes that the code names, and what is in them, such as lists and other plain objects. An
attribute that the code does not name, such as the progress of a data loader, can change without a retrace. No user code
runs. Guards detect a change later, as for captured modules.
"""

from __future__ import annotations

import collections
import enum
import functools
import gc
import types
import weakref
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any

from liftnn._src.captures.code_names import ALL_ATTRIBUTES, names_of_library
from liftnn._src.captures.expand_containers import entries_of
from liftnn._src.captures.guards import (
    ATTRIBUTE,
    CELL_CONTENTS,
    ITEM,
    NO_GUARDS,
    SIZE,
    SLOT,
    Guard,
    Guards,
    assigned_guards,
)
from liftnn._src.captures.libraries import HOLDER_LIBRARIES, is_library
from liftnn._src.captures.search import names_read
from liftnn._src.graph.checks import (
    ABSENT,
    ITERATORS,
    Elements,
    is_atom,
    list_entries,
    read_elements,
    size_of,
)
from liftnn._src.graph.description import GraphSpec
from liftnn._src.graph.kinds import MODULE
from liftnn._src.graph.walk import Walk
from liftnn._src.instances import NO_ATTRIBUTES, instance_dict, slots_of
from liftnn._src.static_values.content import content_of
from liftnn._src.static_values.object_content import Held, ObjectContent, SameObject, refer_to
from liftnn._src.static_values.static import SIMPLE_TYPES, Snapshot, Static, is_foreign
from liftnn._src.static_values.value_types import FROZEN_DATACLASS_VALUE, find_parts
from liftnn._src.trees import Path, module_of

_MOST_EXAMINED = 1_000
"""The maximum number of objects to look at: one may refer to the whole program."""
_LARGEST = 1_000
"""The maximum number of elements of a container to compare; of a longer one, the number is compared."""
_MOST_NESTED = 16
"""The maximum depth of containers in containers; deeper ones, such as those in a cycle, are compared by identity."""


def note_content(walk: Walk, static_values: Iterable[tuple[Any, Static]], functions: Sequence[Any]) -> Guards:
    """Note what the plain objects hold that modules have as static values.

    Args:
      walk: The walk that has visited the modules.
      static_values: The values that may be or hold plain objects, with their `Static`, whose `content` is set.
      functions: The functions that may read the objects.

    Returns:
      Guards that hold while the content is the same.
    """
    guards = NO_GUARDS
    find_names = functools.cache(lambda: names_read([*functions, *dict.fromkeys(map(type, walk.objects))]))
    for x, static in static_values:
        content, found = _examine(x, find_names)
        if content is not None and _is_read(walk, static, content.names):
            static.content, guards = content, guards + found
    return guards


def note_written(graph: GraphSpec) -> None:
    """Note what a trace has written to plain objects: it does not count as changed in later calls.

    Args:
      graph: The arguments of the trace.
    """
    edges = {id(e): e for spec in graph.specs for e in spec.edges if type(e) is Static}
    for static in edges.values():
        before = static.content
        is_copied = isinstance(static.key, Snapshot) and static.key.is_copy  # then the trace wrote to a copy
        if before is not None and not is_copied:
            now, _ = _examine(static.value, lambda names=before.names: names)
            if now is not None:
                before.note_written(now)


def _is_read(walk: Walk, static: Static, names: Set[str]) -> bool:
    """Return whether code may read a static value: it names the attribute, or no module has it as an attribute."""
    if not names.isdisjoint(ALL_ATTRIBUTES):
        return True
    for spec in walk.finished_specs():
        for key, edge in zip(spec.keys, spec.edges, strict=True):
            if edge is static and (
                spec.kind is not MODULE or key in names or key in names_of_library(spec.type)
            ):
                return True
    return False


def _examine(value: Any, find_names: Callable[[], Set[str]]) -> tuple[ObjectContent | None, Guards]:
    """Return what the plain objects in a static value hold; None if it holds none; and guards of it.

    Args:
      value: The static value: a plain object, or a function, method or container that may hold one.
      find_names: Returns the attributes that the code names. Called if there are plain objects.
    """
    found = _Examination(find_names)
    found.look_at(value)
    if not found.objects:
        return None, Guards()
    return ObjectContent(found.objects, found.names), Guards(found.guards, found.elements)


class _Within(enum.IntEnum):
    """In what an object is held."""

    STATIC = 0
    """In the static value itself, with functions and containers that are compared by content anyway."""
    OBJECT = 1
    """In a plain object."""
    MAPPING = 2
    """In an object of a library that is read by any name, such as a ConfigDict: all attributes count."""


class _Examination:
    """One pass over what a static value holds.

    Args:
      find_names: Returns the attributes that the code names.
    """

    def __init__(self, find_names: Callable[[], Set[str]]):
        self._find_names = find_names
        self.guards: list[Guard] = []
        self.elements: list[Elements] = []
        self.objects: dict[int, Held] = {}
        self._queue = collections.deque[tuple[Any, Path, _Within]]()

    @functools.cached_property
    def names(self) -> Set[str]:
        """The attributes that the code names."""
        return self._find_names()

    def look_at(self, value: Any) -> None:
        """Look at a static value, and at what it leads to."""
        self._queue.append((value, (), _Within.STATIC))
        kept: dict[int, Any] = {}
        while self._queue and len(kept) < _MOST_EXAMINED:
            x, path, within = self._queue.popleft()
            if is_atom(x) or id(x) in kept:
                continue
            kept[id(x)] = x
            if type(x) is types.FunctionType and within is not _Within.STATIC:
                self._look_at_function(x, path)
            elif is_plain(x) or (within is not _Within.STATIC and issubclass(type(x), tuple(ITERATORS))):
                self._look_at_object(x, path, within)
            else:
                self._queue += ((y, (*path, key), within) for key, y in _parts(x))

    def _look_at_object(self, x: Any, path: Path, within: _Within) -> None:
        """Note the attributes of a plain object that the code names."""
        cls, attributes, names = type(x), instance_dict(x), self.names
        inside = _Within.MAPPING if within is _Within.MAPPING or _is_mapping(cls) else _Within.OBJECT
        everything = (
            inside is _Within.MAPPING
            or not names.isdisjoint(ALL_ATTRIBUTES)
            or any(module_of(base) in HOLDER_LIBRARIES for base in cls.__mro__)
        )
        entries = dict(attributes)  # another thread may add to it
        found = [
            (n, value, Guard(ITEM, attributes, n, value))
            for n, value in entries.items()
            if everything or n in names
        ]
        for n, member in slots_of(cls):
            if everything or n in names:
                value = SLOT.read(x, member)
                found.append((n, value, Guard(SLOT, x, member, value)))
        self.guards += assigned_guards(x, attributes)
        if attributes is not NO_ATTRIBUTES:
            of_class = names & set[str]().union(*map(instance_dict, cls.__mro__))
            absent = of_class - entries.keys() - {n for n, _ in slots_of(cls)}
            self.guards += [Guard(ITEM, attributes, n, ABSENT) for n in sorted(absent)]
            self.guards.append(Guard(SIZE, attributes, None, len(entries)))
        self._note(x, path, inside, found)

    def _look_at_function(self, f: types.FunctionType, path: Path) -> None:
        """Note the code, the closure, the defaults and the attributes of a function that a plain object holds."""
        names = ("__code__", "__defaults__", "__kwdefaults__", "__dict__")
        found = [(n, getattr(f, n), Guard(ATTRIBUTE, f, n, getattr(f, n))) for n in names]
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            content = CELL_CONTENTS.read(cell, None)
            found.append((name, content, Guard(CELL_CONTENTS, cell, None, content)))
        self._note(f, path, _Within.OBJECT, found)

    def _note(self, x: Any, path: Path, inside: _Within, found: Iterable[tuple[str, Any, Guard]]) -> None:
        """Note what an object holds: the values by name, with their guards."""
        values: dict[str, Any] = {}
        texts: dict[str, str] = {}
        for name, value, guard in found:
            values[name] = self._content(value, (*path, name), inside)
            texts[name] = _text_of(value)
            self.guards.append(guard)
        self.objects[id(x)] = Held(refer_to(x), path, values, texts)

    def _content(self, x: Any, path: Path, inside: _Within, depth: int = 0) -> Any:
        """Return the content of a value in a plain object: equal only for interchangeable values."""
        cls = type(x)
        if cls in SIMPLE_TYPES:
            return (cls, x)
        if cls is types.MappingProxyType:
            (x,) = gc.get_referents(x)
        elements = _elements_of(x)
        if elements is not None:
            is_large = elements.size > _LARGEST or depth == _MOST_NESTED
            if is_large and not issubclass(cls, (tuple, frozenset)):
                self.guards.append(Guard(SIZE, x, None, elements.size))
            if is_large:
                return (SameObject(x), elements.size)
            if not issubclass(cls, (tuple, frozenset)):
                self.elements.append(elements)
            if not is_foreign(module_of(cls)):  # a user's subclass, which may have attributes
                self._queue.append((x, path, inside))
            contents = [self._content(y, (*path, key), inside, depth + 1) for key, y in _by_key(elements)]
            return (type(x), frozenset(contents) if issubclass(cls, (set, frozenset)) else tuple(contents))
        parts = find_parts(cls)
        if parts in (None, FROZEN_DATACLASS_VALUE) or parts.is_mutable or issubclass(cls, _REFERRING):
            self._queue.append((x, path, inside))
            return SameObject(x)
        return content_of(x, inside=True).key


_REFERRING = (types.FunctionType, types.MethodType, functools.partial, weakref.ref)


def _elements_of(x: Any) -> Elements | None:
    """Return the elements of a container, none of a large one; None for another object."""
    iterate = next((each for base, each in ITERATORS.items() if issubclass(type(x), base)), None)
    if iterate is None:
        return None
    size = size_of(x)
    if size > _LARGEST:
        return Elements(x, iterate, (), (), size)
    if iterate is list_entries:
        return entries_of(x, exact=True)
    kept = read_elements(iterate, x)
    return Elements(x, iterate, kept, (False,) * len(kept), len(kept))


def _by_key(elements: Elements) -> Iterable[tuple[Any, Any]]:
    """Return the elements of a container by key: the index; of a dict, its keys and its values by its keys."""
    kept, size = elements.kept, elements.size
    return enumerate(kept) if len(kept) == size else zip((*kept[:size],) * 2, kept, strict=True)


def is_plain(x: Any) -> bool:
    """Return whether a value is an instance of a user's class that liftnn does not look into otherwise."""
    cls = type(x)
    if hasattr(cls, "__graph_node__") or issubclass(cls, (type, enum.Enum, types.ModuleType, *_REFERRING)):
        return False
    if issubclass(cls, tuple(ITERATORS)):
        return False
    return not is_foreign(module_of(cls)) or module_of(cls) in HOLDER_LIBRARIES


def _is_mapping(cls: type) -> bool:
    """Return whether a class of a library reads attributes and items of any name, such as a ConfigDict."""
    return is_library(module_of(cls)) and hasattr(cls, "__getattr__") and hasattr(cls, "__getitem__")


def _parts(x: Any) -> list[tuple[Any, Any]]:
    """Return what a function, method, partial or container holds, by key."""
    cls = type(x)
    if cls is types.FunctionType:
        cells = zip(x.__code__.co_freevars, x.__closure__ or (), strict=True)
        closure = [(name, CELL_CONTENTS.read(cell, None)) for name, cell in cells]
        return [
            *closure,
            *enumerate(x.__defaults__ or ()),
            *(x.__kwdefaults__ or {}).items(),
            *vars(x).items(),
        ]
    if cls is types.MethodType:
        return [("__self__", x.__self__), ("__func__", x.__func__)]
    if cls is weakref.ref:
        return [("()", x())]
    if cls is functools.partial:
        return [("func", x.func), *enumerate(x.args), *x.keywords.items()]
    elements = _elements_of(x)
    return [] if elements is None else list(_by_key(elements))


def _text_of(x: Any) -> str:
    """Return the text of a value for messages."""
    if x is ABSENT or type(x) in SIMPLE_TYPES or type(x) in (float, complex):
        return repr(x)
    return type(x).__name__
