"""The structure of arguments by name, as an exported function stores it to compare it in another process.

A function is the same there if its name, its defaults and its closure are. A plain object, such as a configuration of
the user's own class, is another object there: it fits if its class is the same, and the attributes that the exported
code reads.
"""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Iterator, Set
from typing import Any, NamedTuple

import jax
import numpy as np

from liftnn._src.captures.code_names import ALL_ATTRIBUTES
from liftnn._src.captures.guards import CELL_CONTENTS
from liftnn._src.captures.plain_objects import is_plain
from liftnn._src.graph.checks import ABSENT
from liftnn._src.graph.closures import Definition
from liftnn._src.graph.description import GraphSpec
from liftnn._src.graph.recipes import Recipe
from liftnn._src.instances import instance_dict, read_slot, slots_of
from liftnn._src.modules.portable import WRAPPED
from liftnn._src.publish import PICKLED, publish
from liftnn._src.static_values.static import Static


class FunctionName(NamedTuple):
    """The name of a function with its defaults and closure contents; comparable across processes.

    Args:
      module: Name of its module.
      name: Its qualified name.
      bound: Its defaults and the contents of its closure.
    """

    module: str
    name: str
    bound: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"<function {self.name}>"


class ObjectByClass(NamedTuple):
    """A plain object: its class by name, and what the exported code reads of it; comparable across processes.

    Args:
      module: Name of the module of its class.
      name: Qualified name of its class.
      attributes: The names and values of the attributes, in alphabetical order.
    """

    module: str
    name: str
    attributes: tuple[tuple[str, Any], ...]

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.attributes)})"


def by_name(description: GraphSpec, expected: GraphSpec | None = None) -> GraphSpec:
    """Replace the functions and plain objects of a description, to write it and to compare it in another process.

    Args:
      description: The description.
      expected: What this function returned for the description to compare with: plain objects get the same attributes.
        The default, None, means those that the code reads.

    Returns:
      The description with a `FunctionName` for each function among its static values, and an `ObjectByClass` for each
      plain object without an `==` of its own.
    """
    others = iter(() if expected is None else _all_edges(expected))

    def edge_by_name(edge: Any) -> Any:
        other = next(others, None)
        if not isinstance(edge, Static):
            return edge
        names = _names_read(edge) if expected is None else frozenset(_names_in(getattr(other, "value", None)))
        return Static(_by_name(edge.value, names))

    def extra_by_name(extra: Any) -> Any:
        if type(extra) is Definition:
            return FunctionName(extra.module, extra.name, extra.sizes)
        if type(extra) is Recipe:
            transform, *options = extra.parts
            name = FunctionName(transform.__module__, transform.__qualname__, ())
            return Static((name, *[_by_name(x, frozenset()) for x in options]))
        return extra

    edges = iter(list(map(edge_by_name, _all_edges(description))))
    specs = [
        s._replace(extra=extra_by_name(s.extra), edges=tuple(itertools.islice(edges, len(s.edges))))
        for s in description.specs
    ]
    return type(description)(
        description.treedef, tuple(edges), tuple(specs), description.frozen, description.paths
    )


def _all_edges(description: GraphSpec) -> Iterator[Any]:
    """Yield the edges of all nodes, then those of the tree."""
    for spec in description.specs:
        yield from spec.edges
    yield from description.edges


def _names_read(static: Static) -> Set[str]:
    """Return the attributes that the code reads of the plain objects in a static value."""
    if static.content is None:
        return frozenset()
    return static.content.names - {name for _, name in static.content.written}


def _names_in(value: Any) -> Iterator[str]:
    """Yield the names of the attributes of the plain objects in a value by name."""
    if isinstance(value, ObjectByClass):
        yield from (name for name, _ in value.attributes)
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list, set, frozenset)):
        for x in value:
            yield from _names_in(x)


def _by_name(value: Any, names: Set[str], above: tuple[int, ...] = ()) -> Any:
    """Return a static value with a replacement for each function and plain object.

    Args:
      value: The static value, or a part of it.
      names: The attributes of plain objects to compare.
      above: The ids of the objects that lead to it.
    """
    if id(value) in above:
        return ("above", above.index(id(value)))
    above = (*above, id(value))
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, *WRAPPED, np.ufunc)):
        bound: list[Any] = []
        if isinstance(value, types.FunctionType):
            cells = [x for c in value.__closure__ or () if (x := CELL_CONTENTS.read(c, None)) is not ABSENT]
            bound = [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        name = getattr(value, "__qualname__", value.__name__)
        package = (value.__module__ or "").partition("._src.")[0]  # private modules may move between versions
        return FunctionName(package, name, tuple([_by_name(_as_float(x), names, above) for x in bound]))
    if isinstance(value, functools.partial):
        parts = (value.func, *value.args, *value.keywords.items())
        return FunctionName("functools", "partial", tuple([_by_name(x, names, above) for x in parts]))
    if is_plain(value) and type(value).__eq__ is object.__eq__:
        attributes = sorted(_attributes(value, names))
        content = [(name, _by_name(x, names, above)) for name, x in attributes]
        return ObjectByClass(type(value).__module__, type(value).__qualname__, tuple(content))
    if type(value) in (list, set, frozenset):
        return type(value)(_by_name(x, names, above) for x in value)
    if type(value) is dict:
        return {key: _by_name(x, names, above) for key, x in value.items()}
    if isinstance(value, tuple):
        return tuple.__new__(type(value), [_by_name(x, names, above) for x in value])
    if isinstance(value, (jax.Array, np.ndarray)):
        return ("array", str(value.dtype), value.shape, np.asarray(value).tobytes())
    return value


def _attributes(x: Any, names: Set[str]) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the attributes of an object that are among `names`."""
    everything = not names.isdisjoint(ALL_ATTRIBUTES)
    slots = [(name, read_slot(x, member, ABSENT)) for name, member in slots_of(type(x))]
    for name, value in (*instance_dict(x).items(), *slots):
        if value is not ABSENT and (everything or name in names):
            yield name, value


def _as_float(x: Any) -> Any:
    """Return an int that a function holds as a float: optax schedules convert their ints when they first run."""
    return float(x) if type(x) is int and abs(x) < 2**53 else x


publish(FunctionName, ObjectByClass, module=PICKLED)
