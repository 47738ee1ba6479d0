"""Patterns: the fast path matches the arguments of a call against them, without flattening the arguments.

`make_patterns` makes one pattern for each argument of a call; it matches arguments that the same program accepts. A
module is matched by identity, and a static value by content. A tree of arrays is passed to the program unchanged as one
*unit*, so JAX compares its structure. Tuples, lists and dicts that hold modules are matched element by element. `match`
works in a loop; the generated code has the same steps as straight-line code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from liftnn._src.graph.kinds import is_object
from liftnn._src.graph.slots import ARRAY
from liftnn._src.lifting.contract import Plan
from liftnn._src.modules.module import Module
from liftnn._src.static_values.static import SIMPLE_TYPES, Static
from liftnn._src.trees import children_with_leaves, format_path, static_parts
from liftnn._src.variables.variable import Variable

OBJECTS = (Module, Variable)


class Unmatched(Exception):  # noqa: N818  # not an error: the slow path is taken
    """Raised if arguments do not match a pattern, or no pattern can be made for them."""


class ObjectPattern(NamedTuple):
    """A module or Variable, by identity; the owner of the pattern drops it when the object dies."""

    address: int

    def match(self, x: Any, units: list[Any]) -> None:
        """Compare an argument."""
        if id(x) != self.address:
            raise Unmatched


class UnitPattern(NamedTuple):
    """A tree of arrays, passed to the program as one unit.

    JAX compares its structure. But modules must not be passed to JAX: if flattening raises, JAX 0.10 to 0.12
    permanently lose a level of Python's recursion limit. So `_types_of` compares classes too, to a limited depth.

    Args:
      types: The class of the argument; for a tuple, list or dict also the classes of its elements.
      treedef: Its structure, if it has a static part, which may capture modules; None otherwise.
    """

    types: Any
    treedef: Any = None

    def match(self, x: Any, units: list[Any]) -> None:
        """Compare the classes in an argument, and append it to the units."""
        if _types_of(x) != self.types or (self.treedef is not None and not has_structure(x, self.treedef)):
            raise Unmatched
        units.append(x)


def has_structure(x: Any, treedef: Any) -> bool:
    """Return whether an argument has this structure; False if the static parts cannot be compared."""
    try:
        return bool(jax.tree.structure(x, is_leaf=is_object) == treedef)
    except Exception:  # the slow path raises an error that says why
        return False


_MOST_TYPES = 16
"""The maximum size of a container with elements to look at."""


def _types_of(x: Any, depth: int = 0) -> Any:
    """Return the class of an argument; for a small tuple, list or dict also the classes of its elements."""
    cls = type(x)
    if cls not in (tuple, list, dict) or len(x) > _MOST_TYPES or depth > 2:
        return cls
    if cls is dict:
        return cls, tuple([(k, _types_of(y, depth + 1)) for k, y in x.items()])
    return cls, tuple([_types_of(y, depth + 1) for y in x])


class StaticPattern(NamedTuple):
    """A static value, by content."""

    value: Any

    def match(self, x: Any, units: list[Any]) -> None:
        """Compare an argument."""
        if x is not self.value and not same_static(x, self.value):
            raise Unmatched


class SequencePattern(NamedTuple):
    """A tuple or list that holds a module."""

    type: type
    children: tuple[Pattern, ...]

    def match(self, x: Any, units: list[Any]) -> None:
        """Match the elements of an argument."""
        if type(x) is not self.type or len(x) != len(self.children):
            raise Unmatched
        for child, pattern in zip(x, self.children, strict=True):
            pattern.match(child, units)


class DictPattern(NamedTuple):
    """A dict that holds a module; its keys are in the order of JAX's flattening."""

    keys: tuple[Any, ...]
    children: tuple[Pattern, ...]

    def match(self, x: Any, units: list[Any]) -> None:
        """Match the elements of an argument."""
        if type(x) is not dict or len(x) != len(self.keys):
            raise Unmatched
        for key, pattern in zip(self.keys, self.children, strict=True):
            if key not in x:
                raise Unmatched
            pattern.match(x[key], units)


class PytreePattern(NamedTuple):
    """A container of another class that holds a module; it is flattened.

    Args:
      treedef: Its structure, with modules and static values as leaves.
      parts: The structure, first leaf, end (exclusive) and pattern of each of its parts.
    """

    treedef: Any
    parts: tuple[tuple[Any, int, int, Pattern], ...]

    def match(self, x: Any, units: list[Any]) -> None:
        """Match the elements of an argument."""
        leaves, treedef = jax.tree.flatten(x, is_leaf=is_object)
        if treedef != self.treedef:
            raise Unmatched
        for part, start, end, pattern in self.parts:
            pattern.match(part.unflatten(leaves[start:end]), units)


Pattern = ObjectPattern | UnitPattern | StaticPattern | SequencePattern | DictPattern | PytreePattern


class Patterns(NamedTuple):
    """The patterns of all arguments of a call.

    Args:
      positional: Those of the positional arguments.
      named: Those of the keyword arguments, by name, in the order of JAX's flattening.
    """

    positional: tuple[Pattern, ...]
    named: dict[str, Pattern]

    def match(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """Match arguments, and return their units.

        Args:
          args: The positional arguments.
          kwargs: The keyword arguments.

        Returns:
          The trees of arrays among them, in order.

        Raises:
          Unmatched: If they do not match.
        """
        if len(args) != len(self.positional) or kwargs.keys() != self.named.keys():
            raise Unmatched
        units: list[Any] = []
        for x, pattern in zip(args, self.positional, strict=True):
            pattern.match(x, units)
        for name, pattern in self.named.items():
            pattern.match(kwargs[name], units)
        return units

    def first_object(self) -> tuple[Any, ...] | None:
        """Return the keys from `(args, kwargs)` to the first module; None if there is none."""
        pairs: list[tuple[tuple[Any, ...], Pattern]] = [
            *(((0, i), p) for i, p in enumerate(self.positional)),
            *(((1, name), p) for name, p in self.named.items()),
        ]
        return next((path for path, p in _below(pairs) if isinstance(p, ObjectPattern)), None)


def _below(pairs: Sequence[tuple[tuple[Any, ...], Pattern]]) -> Iterator[tuple[tuple[Any, ...], Pattern]]:
    """Yield patterns and all nested ones, with the keys from `(args, kwargs)`."""
    for path, pattern in pairs:
        yield path, pattern
        if isinstance(pattern, SequencePattern):
            yield from _below([((*path, i), p) for i, p in enumerate(pattern.children)])
        elif isinstance(pattern, DictPattern):
            below = zip(pattern.keys, pattern.children, strict=True)
            yield from _below([((*path, k), p) for k, p in below])


def follow(path: tuple[Any, ...], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the object at a path from `(args, kwargs)`; None if the path does not exist."""
    x: Any = (args, kwargs)
    try:
        for key in path:
            x = x[key]
    except (LookupError, TypeError):
        return None
    return x


def make_patterns(plan: Plan, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Patterns:
    """Make the patterns of the arguments of a call.

    Args:
      plan: The arguments.
      args: The positional arguments.
      kwargs: The keyword arguments.

    Returns:
      Their patterns.

    Raises:
      Unmatched: If an argument contains a dataclass or another object without a pattern.
    """
    positional, named = plan.arguments
    return Patterns(
        tuple([_make(plan, a.treedef, a.leaves, x) for a, x in zip(positional, args, strict=True)]),
        {name: _make(plan, a.treedef, a.leaves, kwargs[name]) for name, a in named.items()},
    )


def _make(plan: Plan, treedef: Any, leaves: range, x: Any) -> Pattern:
    """Make the pattern of one argument, or of a part of one."""
    edges = [plan.graph.edges[leaf] for leaf in leaves]
    if all(edge is ARRAY for edge in edges):
        is_static = any(part is not None for part in static_parts(treedef))
        return UnitPattern(_types_of(x), treedef if is_static else None)
    if jax.tree_util.treedef_is_leaf(treedef):
        return (
            ObjectPattern(id(x)) if type(edges[0]) is int and isinstance(x, OBJECTS) else _static(edges[0], x)
        )
    parts = children_with_leaves(treedef, leaves.start)
    if type(x) in (tuple, list):
        return SequencePattern(
            type(x), tuple([_make(plan, part, span, y) for (part, span), y in zip(parts, x, strict=True)])
        )
    if type(x) is dict:
        keys = tuple(treedef.node_data()[1])
        return DictPattern(
            keys, tuple([_make(plan, part, span, x[k]) for (part, span), k in zip(parts, keys, strict=True)])
        )
    return _make_flattened(plan, leaves, x)


def _make_flattened(plan: Plan, leaves: range, x: Any) -> PytreePattern:
    """Make the pattern of a container that is flattened."""
    found, treedef = jax.tree.flatten(x, is_leaf=is_object)
    parts, stack = [], [(treedef, range(treedef.num_leaves))]
    while stack:
        part, at = stack.pop()
        span = leaves[at.start : at.stop]
        if all(plan.graph.edges[i] is ARRAY for i in span) or jax.tree_util.treedef_is_leaf(part):
            y = part.unflatten(found[at.start : at.stop])
            parts.append((part, at.start, at.stop, _make(plan, part, span, y)))
        else:
            stack += children_with_leaves(part, at.start)[::-1]
    return PytreePattern(treedef, tuple(parts))


def _static(edge: Any, x: Any) -> StaticPattern:
    if type(edge) is not Static and type(edge) is not tuple:
        raise Unmatched  # a dataclass among the arguments
    return StaticPattern(x)


def same_static(x: Any, y: Any) -> bool:
    """Return whether two static arguments are interchangeable."""
    cls = type(x)
    if cls is not type(y):
        return False
    if cls in SIMPLE_TYPES:
        return bool(x == y)
    try:
        return Static(x) == Static(y)
    except Exception:  # it cannot be compared; the slow path raises an error that says why
        return False


def units_of(plan: Plan) -> list[tuple[Any, str]]:
    """Find the units: the largest trees of arrays among the arguments, in order.

    Args:
      plan: The arguments.

    Returns:
      The structure of each unit, and its name in messages.
    """
    positional, named = plan.arguments
    found: list[tuple[Any, str]] = []
    stack = [(a.treedef, a.leaves, (), a.name) for a in (*positional, *named.values())][::-1]
    while stack:
        treedef, leaves, path, name = stack.pop()
        if all(plan.graph.edges[i] is ARRAY for i in leaves):
            found.append((treedef, format_path(path, name)))
            continue
        parts, data = children_with_leaves(treedef, leaves.start), treedef.node_data()
        keys = data[1] if data is not None and data[0] is dict else range(len(parts))
        stack += [(*part, (*path, key), name) for part, key in zip(parts, keys, strict=True)][::-1]
    return found
