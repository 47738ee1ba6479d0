"""Tracers that would outlive their trace inside static values: in a closure, an iterator, an object of another kind."""

from __future__ import annotations

import functools
import gc
import types
from collections.abc import Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn.graph.merge import Change
from liftnn.lifting.after import output_names, paths_after
from liftnn.lifting.result import Plan
from liftnn.trees import format_path
from liftnn.variables.static import Static
from liftnn.variables.variable import Variable

_ATOMS = (str, bytes, int, float, complex, type, type(None), types.ModuleType, types.BuiltinFunctionType)
_MOST = 1000
"""How many objects are looked at: a static value may hold the whole program."""


def check_static_values(plan: Plan, change: Change) -> None:
    """Refuses new static values that hold arrays of the trace that is about to end.

    Args:
      plan: The arguments.
      change: What was returned, made and changed.

    Raises:
      StructureError: If one does; the message has its path.
    """
    specs = [*(spec for _, spec in change.changed), *change.new]
    if not any(_holding(edges) for edges in (change.edges, *(spec.edges for spec in specs))):
        return
    after = paths_after(plan, change)
    for number, spec in (*change.changed, *enumerate(change.new, change.known)):
        root, path = after[number]
        for i in _holding(spec.edges):
            raise _error(format_path((*path, spec.keys[i]), root), spec.edges[i].value)
    for i in _holding(change.edges):
        raise _error(output_names(change)[i], change.edges[i].value)


def _error(path: str, value: Any) -> errors.StructureError:
    return errors.StructureError(
        f"{path} is a {type(value).__name__} that holds an array computed inside the function, which a static value "
        "cannot carry out.",
        "Hold the array in an attribute, a Variable, or a list, dict or dataclass of them.",
    )


def _holding(edges: Sequence[Any]) -> list[int]:
    """Positions of the edges to static values that hold a tracer."""
    return [i for i, e in enumerate(edges) if type(e) is Static and holds_tracer(e.value)]


def holds_tracer(value: Any) -> bool:
    """Whether a tracer can be reached from a static value, through closures, attributes and containers."""
    stack, seen = [value], {id(value)}
    while stack and len(seen) < _MOST:
        x = stack.pop()
        if _is_tracer(x):
            return True
        for y in _children(x):
            if not isinstance(y, _ATOMS) and id(y) not in seen:
                seen.add(id(y))
                stack.append(y)
    return False


def _is_tracer(x: Any) -> bool:
    """Whether `x` is an array without a buffer, so that nobody can say whether that was deleted."""
    if not isinstance(x, jax.Array):
        return False
    try:
        x.is_deleted()
    except jax.errors.ConcretizationTypeError:
        return True
    return False


def _children(x: Any) -> Sequence[Any]:
    """What an object holds."""
    if isinstance(x, jax.Array):
        return ()
    if isinstance(x, Variable):
        return (x._value,)
    if isinstance(x, types.FunctionType):
        cells = [c.cell_contents for c in x.__closure__ or () if not _is_empty(c)]
        return (*cells, *(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).values(), *x.__dict__.values())
    if isinstance(x, functools.partial):
        return (x.func, *x.args, *x.keywords.values())
    if isinstance(x, types.GeneratorType):
        return tuple(x.gi_frame.f_locals.values()) if x.gi_frame is not None else ()
    if type(x).__module__ == "builtins":  # containers, iterators, bound methods
        return gc.get_referents(x)
    return tuple(getattr(x, "__dict__", {}).values())


def _is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False
