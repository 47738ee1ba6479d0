"""Code generation, first part: match the arguments of a fast path, and check the other dependencies of the call."""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from liftnn._src.captures.guards import ITEM, SIZE, Guard
from liftnn._src.compilation.patrol import Beat, take_turns
from liftnn._src.compilation.patterns import (
    DictPattern,
    ObjectPattern,
    Pattern,
    SequencePattern,
    StaticPattern,
    UnitPattern,
)
from liftnn._src.compilation.source import MOST, Remembered, Source, build
from liftnn._src.graph.checks import ABSENT, Elements
from liftnn._src.graph.containers import base_of


def match(source: Source[Any], units: list[str]) -> bool:
    """Generate the code that matches the arguments; return whether this is possible."""
    patterns = source.path.patterns
    positional, named = patterns.positional, patterns.named
    source.miss_if(
        f"len(args) != {len(positional)} or " + (f"len(kwargs) != {len(named)}" if named else "kwargs")
    )
    names = [f"a{i}" for i in range(len(positional))]
    if names:
        source.add(f"{', '.join(names)}, = args")
    for i, name in enumerate(named):
        source.add(f"b{i} = kwargs[{name!r}]")
        names.append(f"b{i}")
    pairs = zip(names, (*positional, *named.values()), strict=True)
    return all(_match_one(source, n, p, units) for n, p in pairs)


def _match_one(source: Source[Any], name: str, pattern: Pattern, units: list[str]) -> bool:
    if isinstance(pattern, UnitPattern):
        _check_types(source, name, pattern.types)
        if pattern.treedef is not None:
            source.miss_if(f"not has_structure({name}, {source.name(pattern.treedef)})")
        units.append(name)
    elif isinstance(pattern, ObjectPattern):
        source.miss_if(f"id({name}) != {source.name(pattern.address)}")
    elif isinstance(pattern, StaticPattern):
        value = source.name(pattern.value)
        source.miss_if(f"{name} is not {value} and not same_static({name}, {value})")
    elif isinstance(pattern, SequencePattern):
        kind, children = source.name(pattern.type), [f"{name}_{i}" for i in range(len(pattern.children))]
        source.miss_if(f"type({name}) is not {kind} or len({name}) != {len(children)}")
        source.add(f"{', '.join(children)}, = {name}")
        pairs = zip(children, pattern.children, strict=True)
        return all(_match_one(source, n, p, units) for n, p in pairs)
    elif isinstance(pattern, DictPattern):
        source.miss_if(f"type({name}) is not dict or len({name}) != {len(pattern.keys)}")
        for i, (key, child) in enumerate(zip(pattern.keys, pattern.children, strict=True)):
            source.add(f"{name}_{i} = {name}[{source.name(key)}]")
            if not _match_one(source, f"{name}_{i}", child, units):
                return False
    else:
        return False
    return True


def _check_types(source: Source[Any], where: str, types: Any) -> None:
    """Generate the comparison of the class of an argument, and of the classes of its elements."""
    cls, elements = types if isinstance(types, tuple) else (types, None)
    source.miss_if(f"type({where}) is not {source.name(cls)}")
    if elements is not None:
        source.miss_if(f"len({where}) != {len(elements)}")
        for key, inner in elements if cls is dict else enumerate(elements):
            _check_types(source, f"{where}[{source.name(key)}]", inner)


# --- checks


def check(source: Source[Any]) -> None:
    """Generate the checks of everything that the call depends on besides its arguments."""
    path = source.path
    for attribute in path.varying:
        where = f"attributes_of({source.name(attribute.module)}())[{attribute.name!r}]"
        value = source.name(attribute.value)
        source.miss_if(f"{where} is not {value} and not same_static({where}, {value})")
    for check in (*path.checks, *path.guards.elements):
        if not (isinstance(check, Elements) and len(check.kept) <= MOST and _check_elements(source, check)):
            source.miss_if(f"not {source.name(check)}.holds()")
    for guard in path.guards.guards:
        _check_guard(source, guard)


def patrol(source: Source[Remembered]) -> None:
    """Generate the comparison of attributes that may have been set without `Module.__setattr__`; see `patrol.py`."""
    rounds = source.path.rounds
    if len(rounds) == 1:
        for beat in rounds[0]:
            for condition in _conditions(beat, source.name):
                source.miss_if(condition)
    elif rounds:
        source.add(f"written = {source.name(take_turns([_compare(beats) for beats in rounds]))}()()")


def _conditions(beat: Beat, name: Callable[[Any], str]) -> list[str]:
    """Return expressions; one of them is true if an attribute of the module has changed."""
    attributes = where = name(beat.attributes)
    if isinstance(beat.attributes, weakref.ref):
        attributes, where = "found", f"found := attributes_of({where}())"
    each = [f"{attributes}[{key!r}] is not {name(x)}" for key, x in beat.kept.items()]
    return [f"len({where}) != {beat.size}", *each]


def _compare(beats: Sequence[Beat]) -> Callable[[], bool]:
    """Build a function that compares some attributes, and returns whether one has changed."""
    names: dict[int, tuple[str, Any]] = {}

    def name(x: Any) -> str:
        return names.setdefault(id(x), (f"k{len(names)}", x))[0]

    conditions = [c for beat in beats for c in _conditions(beat, name)]
    lines = ["try:", f"  return {' or '.join(conditions)}", "except KeyError:", "  return True"]
    return build("", lines, dict(names.values()))


def _check_elements(source: Source[Any], check: Elements) -> bool:
    """Generate the check of a list, or of a dict with string keys; return whether this is possible."""
    kind, size, kept = type(check.container), check.size, check.kept
    keys: Sequence[Any] = range(size) if kind is list else kept[:size]
    if (
        kind not in (list, dict)
        or len(kept) < size
        or not (kind is list or all(type(k) is str for k in keys))
    ):
        return False
    container, offset = source.name(check.container), len(kept) - size
    if size and all(
        check.loose[offset:]
    ):  # atoms rarely change: compare the whole container, and look at its elements only if it differs
        were = dict(zip(kept, kept[size:], strict=False)) if kind is dict else list(kept)
        seen = source.name(were)
        source.miss_if(
            f"{container} != {seen} and not {source.name(functools.partial(_refresh, check))}({seen})"
        )
        return True
    if kind is dict or not size:
        _check_size(source, container, size)
        places = [f"{container}[{key!r}]" for key in keys]
        if check.ordered and size > 1:
            source.miss_if(f"[*{container}] != {source.name(list(keys))}")
    else:
        places = [f"e{i}" for i in range(size)]
        source.add(f"{', '.join(places)}, = {container}")  # raises a ValueError if the length differs
    for i, where in enumerate(places):
        loose = check.loose[offset + i]
        other = f" and type({where}) not in ATOMS" if loose else ""
        source.miss_if(f"{where} is not {source.name(kept[offset + i])}{other}")
    return True


def _check_size(source: Source[Any], container: str, size: int, size_of: str = "len") -> None:
    """Generate the comparison of the size of a container."""
    empty = size == 0 and size_of == "len"
    source.miss_if(container if empty else f"{size_of}({container}) != {size}")


def _refresh(check: Elements, seen: list[Any] | dict[Any, Any]) -> bool:
    """Return whether a container still holds only atoms; if so, copy them to `seen` for later comparisons."""
    holds = check.holds()
    if holds and isinstance(seen, dict):
        seen.update(check.container)  # the keys are the same
    elif holds:
        seen[:] = check.container
    return holds


def _check_guard(source: Source[Any], guard: Guard) -> None:
    """Generate the check of one guard."""
    holder, key = source.name(guard.holder), source.name(guard.key)
    if guard.value is ABSENT:
        if guard.kind is ITEM:
            source.miss_if(f"{key} in {holder}")
        else:
            source.miss_if(f"not {source.name(guard)}.holds()")
        return
    if guard.kind is SIZE:
        plain = type(guard.holder) in (dict, list, types.MappingProxyType)
        _check_size(source, holder, guard.value, "len" if plain else "size_of")
        return
    where = guard.kind.source.format(h=holder, k=key, name=guard.key)
    other = f" and type({where}) not in ATOMS" if guard.loose else ""
    source.miss_if(f"{where} is not {source.name(guard.value)}{other}")


def read(source: Source[Any], reader: Any) -> str:
    """Return the expression that reads an array leaf of a node."""
    if reader.holder is None:
        return source.name(reader.fixed)
    holder = source.name(reader.holder)
    if isinstance(reader.holder, weakref.ref):
        return f"attributes_of({holder}())[{source.name(reader.key)}]"
    if reader.is_slot:
        return f"{holder}.{reader.key}"
    base = base_of(type(reader.holder))
    if type(reader.holder) is base:
        return f"{holder}[{source.name(reader.key)}]"
    return (
        f"{source.name(base.__getitem__)}({holder}, {source.name(reader.key)})"  # past the code of a subclass
    )
