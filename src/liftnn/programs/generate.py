"""Generates the code of a fast path: one straight-line function that does what `FastPath.call` does in loops.

The call runs just after a program has, which leaves little of Python in the processor's caches. So what counts is how
many calls and loops it makes; written out, a step takes 10 to 30 ns. Two fast paths of the same shape have the same
source, whose code is compiled once. Beyond `_MOST` elements loops are used: there the generated code would be long, and
the start of a loop counts for little.

Values are written back without a call or a loop in between, up to `_MOST` of them, so no signal's handler and no other
thread can see a part of them written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from sys import getrefcount
from typing import Any, Protocol

import jax

from liftnn.graph.checks import ABSENT, ATOMS, Check, Elements
from liftnn.lifting.guards import ITEM, Guard, Guards
from liftnn.programs.dependencies import Attribute, Reader
from liftnn.programs.patrol import Beat, take_turns
from liftnn.programs.patterns import (
    DictPattern,
    ObjectPattern,
    Pattern,
    Patterns,
    SequencePattern,
    StaticPattern,
    UnitPattern,
    same_static,
)
from liftnn.programs.write_back import WriteBack, Writer, write
from liftnn.trees import are_distinct
from liftnn.variables import frames
from liftnn.variables.variable import Storage
from liftnn.variables.watch import Watch

MISS: Any = object()
"""What a fast path gives for a call that it cannot make."""

_MOST = 64
"""How many elements are written out."""


class Remembered(Protocol):
    """What a fast path knows of its call; see `fast_path.py`."""

    writer: Writer
    patterns: Patterns
    guards: Guards
    varying: list[Attribute]
    checks: list[Check]
    readers: list[Reader]
    rounds: list[list[Beat]]
    array_type: type | None
    watch: Watch
    report: Callable[[], Any]


class Source:
    """The lines of a function, and the objects that they refer to by name.

    Args:
      path: The fast path.
    """

    def __init__(self, path: Remembered):
        self.path = path
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self._names: dict[int, str] = {}

    def add(self, *lines: str) -> None:
        """Adds lines."""
        self.lines += lines

    def name(self, x: Any) -> str:
        """The name of a constant."""
        found = self._names.get(id(x))
        if found is None:
            found = self._names[id(x)] = f"k{len(self.constants)}"
            self.constants[found] = x
        return found

    def miss_if(self, condition: str) -> None:
        """Adds a check."""
        self.add(f"if {condition}: return MISS")


def generate(path: Remembered) -> Callable[[Any, Any], Any] | None:
    """The function that makes the calls of a fast path.

    Args:
      path: The fast path, after its first call.

    Returns:
      A function of positional and keyword arguments; None if `FastPath.call` has to do it.
    """
    if len(path.writer.write_backs) != 1:
        return None
    ((number, how),) = path.writer.write_backs.items()
    source = Source(path)
    units: list[str] = []
    if not _match(source, units):
        return None
    source.miss_if(f"not {source.name(path.watch)}.valid")
    _check(source)
    _patrol(source)
    units += [_read(source, reader) for reader in path.readers]
    source.add(f"units = ({''.join(f'{u}, ' for u in units)})")
    source.lines = ["try:", *(f"  {line}" for line in source.lines), "except CHANGED:", "  return MISS"]
    if len(path.rounds) > 1:
        source.add(f"if written: {source.name(path.report)}()")
    _call(source)
    _close(source, number, how)
    return _function(source)


def _function(source: Source) -> Callable[[Any, Any], Any]:
    """Compiles the lines."""
    names = tuple(source.constants)
    body = "\n".join(f"    {line}" for line in source.lines)
    text = f"def make({', '.join((*_GLOBALS, *names))}):\n  def call(args, kwargs):\n{body}\n  return call\n"
    scope: dict[str, Any] = {}
    exec(_compile(text), scope)
    return scope["make"](*_GLOBALS.values(), *source.constants.values())


@functools.lru_cache(maxsize=256)
def _compile(text: str) -> Any:
    """The code of a text."""
    return compile(text, "<liftnn fast path>", "exec")


# --- arguments


def _match(source: Source, units: list[str]) -> bool:
    """Recognizes the arguments; whether that can be written out."""
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


def _match_one(source: Source, name: str, pattern: Pattern, units: list[str]) -> bool:
    if isinstance(pattern, UnitPattern):
        _check_types(source, name, pattern.types)
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


def _check_types(source: Source, where: str, types: Any) -> None:
    """Compares the classes of an argument and of what it holds."""
    cls, elements = types if isinstance(types, tuple) else (types, None)
    source.miss_if(f"type({where}) is not {source.name(cls)}")
    if elements is not None:
        source.miss_if(f"len({where}) != {len(elements)}")
        for key, inner in elements if cls is dict else enumerate(elements):
            _check_types(source, f"{where}[{source.name(key)}]", inner)


# --- checks


def _check(source: Source) -> None:
    """Checks what the call depends on beside its arguments."""
    path = source.path
    for attribute in path.varying:
        where, value = (
            f"{source.name(attribute.attributes)}[{attribute.name!r}]",
            source.name(attribute.value),
        )
        source.miss_if(f"{where} is not {value} and not same_static({where}, {value})")
    for check in (*path.checks, *path.guards.elements):
        if not (isinstance(check, Elements) and len(check.kept) <= _MOST and _check_elements(source, check)):
            source.miss_if(f"not {source.name(check)}.holds()")
    for guard in path.guards.guards:
        _check_guard(source, guard)


def _patrol(source: Source) -> None:
    """Compares attributes that may have been written past `Module.__setattr__`."""
    rounds = source.path.rounds
    if len(rounds) == 1:
        for beat in rounds[0]:
            for condition in _conditions(beat, source.name):
                source.miss_if(condition)
    elif rounds:
        source.add(f"written = {source.name(take_turns([_compare(beats) for beats in rounds]))}()()")


def _conditions(beat: Beat, name: Callable[[Any], str]) -> list[str]:
    """What is true if the attributes of a module are no longer those that they were."""
    attributes = name(beat.attributes)
    each = [f"{attributes}[{key!r}] is not {name(x)}" for key, x in beat.kept.items()]
    return [f"len({attributes}) != {beat.size}", *each]


def _compare(beats: Sequence[Beat]) -> Callable[[], bool]:
    """A function that compares some attributes, and says whether one was written."""
    names: dict[int, tuple[str, Any]] = {}

    def name(x: Any) -> str:
        return names.setdefault(id(x), (f"k{len(names)}", x))[0]

    conditions = [c for beat in beats for c in _conditions(beat, name)]
    text = (
        f"def make({', '.join(n for n, _ in names.values())}):\n  def compare():\n    try:\n"
        f"      return {' or '.join(conditions)}\n    except KeyError:\n      return True\n  return compare\n"
    )
    scope: dict[str, Any] = {}
    exec(_compile(text), scope)
    return scope["make"](*[x for _, x in names.values()])


def _check_elements(source: Source, check: Elements) -> bool:
    """Checks the elements of a list, or the entries of a dict with strings as keys; whether that can be written out."""
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
    ):  # atoms, which hardly ever change: compared at once, and looked at if they do
        values = f"[*{container}{'.values()' if kind is dict else ''}]"
        source.miss_if(f"{values} != {source.name(list(kept[offset:]))} and not {source.name(check)}.holds()")
        return True
    source.miss_if(f"len({container}) != {size}")
    if kind is dict and check.ordered and size > 1:
        source.miss_if(f"[*{container}] != {source.name(list(keys))}")
    for i, key in enumerate(keys):
        where, loose = f"{container}[{key!r}]", check.loose[offset + i]
        other = f" and type({where}) not in ATOMS" if loose else ""
        source.miss_if(f"{where} is not {source.name(kept[offset + i])}{other}")
    return True


def _check_guard(source: Source, guard: Guard) -> None:
    """Checks one place."""
    holder, key = source.name(guard.holder), source.name(guard.key)
    if guard.value is ABSENT:
        if guard.kind is ITEM:
            source.miss_if(f"{key} in {holder}")
        else:
            source.miss_if(f"not {source.name(guard)}.holds()")
        return
    where = guard.kind.source.format(h=holder, k=key, name=guard.key)
    other = f" and type({where}) not in ATOMS" if guard.loose else ""
    source.miss_if(f"{where} is not {source.name(guard.value)}{other}")


def _read(source: Source, reader: Any) -> str:
    """The expression that reads an array leaf of a node."""
    if reader.holder is None:
        return source.name(reader.fixed)
    holder = source.name(reader.holder)
    return f"{holder}.{reader.key}" if reader.is_slot else f"{holder}[{source.name(reader.key)}]"


# --- the program


def _call(source: Source) -> None:
    """Reads the values and runs the program."""
    path, program = source.path, source.path.writer.program
    storages = path.writer.storages
    values = [f"v{i}" for i in range(len(storages))]
    if len(storages) <= _MOST:
        source.add(*[f"v{i} = {source.name(x)}.value" for i, x in enumerate(storages)])
        every = f"[{', '.join(values)}]"
    else:
        source.add(f"values = [x.value for x in {source.name(storages)}]")
        values, every = [f"values[{i}]" for i in range(len(storages))], "values"
    if program.donates:
        source.add("shared = False")
        array_type = source.name(path.array_type)
        each = f"if type(v) is not {array_type} or getrefcount(v) > HELD_ONCE: shared = True"
        if len(storages) <= _MOST:
            source.add(*[each.replace("(v)", f"({v})") for v in values])
        else:
            source.add("for v in values:", f"  {each.replace('HELD_ONCE', '(HELD_ONCE + 1)')}")
    run, jitted = source.name(program), source.name(program.jitted)
    source.add("try:")
    if program.donates:
        source.add(
            f"  if shared and not are_distinct(({every}, units)): returned = {run}.run_units({every}, units)",
            f"  else: returned = {jitted}({_arguments(source, values, every)})",
        )
    else:
        source.add(f"  returned = {jitted}({_arguments(source, values, every)})")
    source.add(
        "except (TypeError, RetraceNeeded): return MISS",
        f"except Exception as error: returned = {run}.recover(error, {every}, leaves(units))",
    )


def _arguments(source: Source, values: list[str], every: str) -> str:
    """What the compiled function is called with."""
    program = source.path.writer.program
    if not program.divides:
        return f"{every}, units"
    if program.divides_arrays:
        return f"*{source.name(program)}.divide({every}, leaves(units))"
    given, kept = program.donated_values
    return f"({_picked(values, given)}, ()), ({_picked(values, kept)}, units)"


def _picked(values: list[str], positions: Sequence[int]) -> str:
    """Some of the values, in a list or a tuple as `make_picker` gives them."""
    chosen = "".join(f"{values[i]}, " for i in positions)
    start = positions[0] if positions else 0
    return f"[{chosen}]" if list(positions) == list(range(start, start + len(positions))) else f"({chosen})"


def _close(source: Source, number: int, how: WriteBack) -> None:
    """Writes values back; another result than that of the first call, or more than values, in the general way."""
    path, grouped = source.path, source.path.writer.program.grouped
    close = f"{source.name(path.writer)}.close"
    if not how.simple or how.rebind is not None:
        source.add(f"return {close}(returned)")
        return
    source.add(f"if len(returned{'[1]' if grouped else ''}) != {number}: return {close}(returned)")
    written = [path.writer.storages[i] for i in how.written]
    parts = [f"p{i}" for i in range(len(written))]
    if grouped:
        out, sources = _open_groups(source, how)
        source.add(*[f"{p} = {x}" for p, x in zip(parts, sources, strict=True)], f"out = {out}")
    elif len(written) > _MOST:
        source.add(
            "p = returned[1]", f"if type(p[0]) is not {source.name(how.array_type)}: return {close}(returned)"
        )
        source.add(f"write({source.name(written)}, p)", "return returned[0]")
        return
    else:
        source.add("out, p = returned", *([f"{', '.join(parts)}, = p"] if parts else []))
    if parts:
        source.add(f"if type(p0) is not {source.name(how.array_type)}: return {close}(returned)")
    source.add(*[f"{source.name(x)}.value = {p}" for x, p in zip(written, parts, strict=True)], "return out")


def _open_groups(source: Source, how: WriteBack) -> tuple[str, list[str]]:
    """The output and the written values, in a result that comes in one list for each sharding."""
    assert how.layout is not None
    source.add("g = returned[0]")
    leaves = [f"g[{g}][{i}]" for g, i in how.layout.arrays]
    parts = [f"g[{at[0]}][{at[1]}]" for at in how.layout.updates if at is not None]
    single = how.treedef == _LEAF
    return (leaves[0] if single else f"{source.name(how.treedef)}.unflatten([{', '.join(leaves)}])"), parts


def _count_held_once() -> int:
    """The count of references to a value that one storage and one variable hold: 3, or less in a later Python.

    A debugger that runs now may hold one more. So it is never more than 3.
    """
    made = Storage()
    made.value = object()
    value = made.value
    return min(3, getrefcount(value))


HELD_ONCE = _count_held_once()
"""An array with no more references is in no other Variable and no argument, so its buffer can be given away."""


_LEAF = jax.tree.structure(0)
_GLOBALS = {
    "MISS": MISS,
    "ATOMS": ATOMS,
    "CHANGED": (LookupError, AttributeError, ValueError, RuntimeError),
    "RetraceNeeded": frames.RetraceNeeded,
    "HELD_ONCE": HELD_ONCE,
    "same_static": same_static,
    "are_distinct": are_distinct,
    "getrefcount": getrefcount,
    "leaves": jax.tree.leaves,
    "write": write,
}
"""What generated code refers to in every function; `CHANGED` is what a check raises where something has changed."""
