"""The modules that a function reaches by other ways than its arguments: closures, globals, defaults, bound objects.

They are found by looking at the function and what it refers to, without running it: cells of closures, globals that its
code names, defaults, and from there functions, containers and attributes. Of objects of other classes, of classes and
of Python modules only attributes are followed whose names occur in the code. What is found by no such way is found
when it is used; see `frames.Missing`.
"""

from __future__ import annotations

import dis
import functools
import sys
import types
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any, NamedTuple

import jax

from liftnn import errors
from liftnn.graph.kinds import DATACLASS, DICT, LIST
from liftnn.graph.walk import Walk
from liftnn.lifting.result import Plan

_FOREIGN = frozenset(sys.stdlib_module_names) | {
    "jax",
    "jaxlib",
    "numpy",
    "optax",
    "flax",
    "equinox",
    "liftnn",
}
_ATOMS = (str, bytes, int, float, complex, bool, type(None), jax.Array, types.BuiltinFunctionType)
_MOST = 10_000
"""How many things are looked at: a global may refer to the whole program."""
_MOST_IN_ONE = 1_000
"""How many elements of one container."""


class Ways:
    """The steps of the ways from a function to what it captures, with what each led to.

    Args:
      cells: Cells of closures, with what they held.
      entries: Mappings (globals and attributes among them) and a key, with what stood there.
      containers: Lists and sets, with their elements.
    """

    __slots__ = ("cells", "containers", "entries")

    def __init__(self) -> None:
        self.cells: list[tuple[types.CellType, Any]] = []
        self.entries: list[tuple[Mapping[Any, Any], Any, Any]] = []
        self.containers: list[tuple[Any, list[Any]]] = []

    def __bool__(self) -> bool:
        return bool(self.cells or self.entries or self.containers)

    def lead_there(self) -> bool:
        """Whether each step still leads where it did; part of a warm call."""
        try:
            for cell, held in self.cells:
                if cell.cell_contents is not held:
                    return False
            for mapping, key, held in self.entries:
                if mapping.get(key) is not held:
                    return False
            for container, kept in self.containers:
                if len(container) != len(kept) or not all(map(is_, container, kept)):
                    return False
        except (ValueError, RuntimeError):  # the cell is empty now; another thread is changing the container
            return False
        return True


class Captured(NamedTuple):
    """What a function captures.

    Args:
      roots: The modules and Variables, by the name that the code has for them.
      ways: The ways to them.
    """

    roots: dict[str, Any]
    ways: Ways


def find_captured(functions: Iterable[Any]) -> Captured:
    """The modules and Variables that functions capture.

    Args:
      functions: The functions; anything else that is callable, too.

    Returns:
      What they capture.
    """
    functions = list(functions)
    names: set[str] = set()
    while True:
        known = len(names)
        search = _Search(names)
        for function in functions:
            search.visit("", function)
        if len(names) == known or not search.holds_attributes:
            return Captured(search.roots, search.ways)


@functools.lru_cache(maxsize=4096)
def _names_in(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a piece of code takes from its globals, and all names of attributes in it."""
    loaded = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    every = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner_loaded, inner_every = _names_in(constant)
            loaded |= inner_loaded
            every |= inner_every
    return frozenset(loaded), frozenset(every)


class _Search:
    """One pass over what functions refer to.

    Args:
      names: Attribute names in the code seen so far; more are added.
    """

    def __init__(self, names: set[str]):
        self.roots: dict[str, Any] = {}
        self.ways = Ways()
        self.holds_attributes = False
        self._names = names
        self._left = _MOST
        self._found: dict[int, tuple[Any, bool]] = {}

    def visit(self, name: str, x: Any) -> bool:
        """Looks at one object; gives whether a module or Variable was found in it."""
        self._left -= 1
        if isinstance(x, _ATOMS) or self._left < 0:
            return False
        known = self._found.get(id(x))
        if known is not None:
            return known[1]
        self._found[id(x)] = (x, False)  # for cycles; the object is kept, so that its id is
        found = self._visit(name, x)
        self._found[id(x)] = (x, found)
        return found

    def _visit(self, name: str, x: Any) -> bool:
        if hasattr(type(x), "__graph_node__"):
            while name in self.roots:
                name += "'"
            self.roots[name or type(x).__name__] = x
            return True
        if isinstance(x, types.FunctionType):
            return self._visit_function(x)
        if isinstance(x, (list, tuple, set, frozenset)):
            found = [self.visit(f"{name}[{i}]", y) for i, y in enumerate(list(x)[:_MOST_IN_ONE])]
            if any(found) and not isinstance(x, (tuple, frozenset)):
                self.ways.containers.append((x, list(x)))
            return any(found)
        if isinstance(x, Mapping):
            return self._visit_dict(name, x, list(x)[:_MOST_IN_ONE])
        carried = getattr(type(x), "carried_functions", None)  # a transformed function
        if carried is not None:
            return self._visit_all(name, carried(x))
        if isinstance(x, functools.partial):
            return self._visit_all(name, (x.func, *x.args, *x.keywords.values()))
        if isinstance(x, types.MethodType):
            return self._visit_all("self", (x.__self__, x.__func__))
        wrapped = getattr(x, "__dict__", {}).get(
            "__wrapped__"
        )  # not by getattr, which may run code of the user's
        if wrapped is not None:
            return self.visit(name, wrapped)
        return self._visit_holder(name, x)

    def _visit_all(self, name: str, several: Sequence[Any]) -> bool:
        found = [self.visit(name, y) for y in several]  # all of them
        return any(found)

    def _visit_function(self, function: types.FunctionType) -> bool:
        """A function: its closure, the globals in its code, its defaults and attributes."""
        if _is_foreign(function.__module__):
            return False
        loaded, every = _names_in(function.__code__)
        self._names |= every
        found = False
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            held = _content(cell)
            if self.visit(name, held):
                found = True
                self.ways.cells.append((cell, held))
        outside = function.__globals__
        found |= self._visit_dict("", outside, [n for n in loaded if n in outside])
        defaults = function.__code__.co_varnames[: function.__code__.co_argcount]
        given = function.__defaults__ or ()
        for name, x in zip(defaults[len(defaults) - len(given) :], given, strict=True):
            found |= self.visit(name, x)
        for name, x in (function.__kwdefaults__ or {}).items():
            found |= self.visit(name, x)
        return found | self._visit_all("", tuple(vars(function).values()))

    def _visit_dict(self, name: str, x: Mapping[Any, Any], keys: Sequence[Any]) -> bool:
        """Some entries of a mapping."""
        leading = [k for k in keys if self.visit(f"{name}[{k!r}]" if name else str(k), x[k])]
        for k in leading:
            self.ways.entries.append((x, k, x[k]))
        return bool(leading)

    def _visit_holder(self, name: str, x: Any) -> bool:
        """An object of another class, a class or a Python module: attributes whose names are in the code."""
        cls = x if isinstance(x, type) else type(x)
        if _is_foreign(x.__name__ if isinstance(x, types.ModuleType) else cls.__module__):
            return False
        self.holds_attributes = True
        attributes = getattr(x, "__dict__", {})
        prefix = f"{name}." if name else ""
        named = [n for n in attributes if n in self._names]
        leading = [n for n in named if self.visit(f"{prefix}{n}", _plain(attributes[n]))]
        for n in leading:
            self.ways.entries.append((attributes, n, attributes[n]))
        if isinstance(x, types.ModuleType):
            return bool(leading)
        inherited = [self.visit(name, base) for base in cls.__mro__[isinstance(x, type) :]]
        return bool(leading) or any(inherited)


def _is_foreign(module: str | None) -> bool:
    """Whether code of that Python module knows no objects of the user's."""
    return module is None or module.partition(".")[0] in _FOREIGN


def _plain(x: Any) -> Any:
    """The function inside a method of a class."""
    return getattr(x, "__func__", getattr(x, "fget", x))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


class Pinned:
    """Bare arrays of captured modules: the code reads them where they stand, so they are constants of what is traced.

    Args:
      arrays: The arrays.
    """

    __slots__ = ("_hash", "_references")

    def __init__(self, arrays: Sequence[Any]):
        self._references = [_reference(x) for x in arrays]
        self._hash = hash(tuple(map(id, arrays)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pinned) or len(self._references) != len(other._references):
            return False
        found = [(a(), b()) for a, b in zip(self._references, other._references, strict=True)]
        return all(x is y and x is not None for x, y in found)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return "constants"


@contextmanager
def containers_kept(plan: Plan, originals: Sequence[Any], name: str) -> Generator[None]:
    """Refuses changes of captured lists, dicts and dataclasses, which cannot refuse them by themselves.

    Args:
      plan: The arguments.
      originals: The live objects by number.
      name: The transform, for messages.

    Raises:
      TraceContextError: If one was changed; it is as it was before.
    """
    kept = [
        (number, originals[number], plan.graph.specs[number].kind.open(originals[number]))
        for number in sorted(plan.captured)
        if number < len(originals) and plan.graph.specs[number].kind in (LIST, DICT, DATACLASS)
    ]
    changed: list[int] = []
    try:
        yield
    finally:
        for number, x, (extra, keys, children) in kept:
            _, keys_now, children_now = plan.graph.specs[number].kind.open(x)
            if keys != keys_now or not all(map(is_, children, children_now)):
                plan.graph.specs[number].kind.fill(x, extra, keys, list(children))
                changed.append(number)
    if changed:
        raise errors.TraceContextError(
            f"{plan.path_of(changed[0])} (a {plan.graph.specs[changed[0]].type.__name__}) was changed in "
            f"liftnn.{name}, which it reached through a closure, where only values of Variables can be changed.",
            f"Pass the module that holds it as an argument of the function given to liftnn.{name}.",
        )


def _reference(x: Any) -> Callable[[], Any]:
    """Refers to an array weakly; to one that cannot be referred to, such as a tracer, not at all."""
    try:
        return weakref.ref(x)
    except TypeError:
        return lambda: None


def pin(walk: Walk, edges: Sequence[Any]) -> Pinned | None:
    """What of captured modules is a constant.

    Args:
      walk: The walk that has met them.
      edges: Their edges.

    Returns:
      The bare arrays in them; None if there are none.
    """
    seen: set[int] = set()
    stack = list(edges)
    arrays: list[Any] = []
    while stack:
        number = stack.pop()
        if type(number) is int and number not in seen:
            seen.add(number)
            arrays += walk.arrays[number]
            stack += walk.finished_specs()[number].edges
    return Pinned(arrays) if arrays else None
