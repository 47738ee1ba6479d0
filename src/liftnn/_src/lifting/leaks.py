"""Find leaks: tracers and copies of modules that would outlive their trace inside a static value, such as a closure."""

from __future__ import annotations

import collections
import functools
import gc
import types
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.graph.description import NodeSpec
from liftnn._src.graph.kinds import DICT
from liftnn._src.instances import held_by
from liftnn._src.lifting.after import names_after, output_names, paths_after
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.lifting.values import Encoded
from liftnn._src.static_values.static import Static
from liftnn._src.trees import an, format_path, is_tracer, key_of
from liftnn._src.variables import frames
from liftnn._src.variables.variable import Variable

_ATOMS = (str, bytes, int, float, complex, type, type(None), types.ModuleType, types.BuiltinFunctionType)
_CONTAINERS = (tuple, list, dict, set, frozenset, collections.deque)
_MOST = 1000
"""The maximum number of objects to visit: a static value may refer to the whole program."""


_ELSEWHERE = "Store the array in an attribute, a Variable, or a list, dict or dataclass of them."
_TRANSFORMATION = (
    "Create the transformation of optax outside, as in `tx = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)`, "
    "and set the number inside: `optimizer.opt_state.hyperparams['learning_rate'] = x`."
)


def check_static_values(plan: Plan, result: Result, frame: Any) -> None:
    """Check that new static values hold no tracers and no objects of the frame that is about to close.

    Args:
      plan: The arguments.
      result: What was returned, created and changed.
      frame: The frame.

    Raises:
      StructureError: If a static value holds one; the message names its path.
    """
    tracers = frame.outer is frames.PLAIN  # in a nested frame, a tracer may belong to an outer trace
    change = result.change
    specs = [*(spec for _, spec in change.changed), *change.new]
    values = [
        e.value for edges in (change.edges, *(s.edges for s in specs)) for e in edges if type(e) is Static
    ]
    values += [spec.extra[0].value for spec in specs if _has_factory(spec)]
    _check_values(plan, result, frame, tracers)
    held = {id(value): found for value in values if (found := find_held(value, frame, tracers)) is not None}
    if not held:
        return
    after = paths_after(plan, change)
    for number, spec in (*change.changed, *enumerate(change.new, change.known)):
        root, path = after[number]
        if _has_factory(spec) and id(spec.extra[0].value) in held:
            value = spec.extra[0].value
            raise _error(format_path((*path, "default_factory"), root), value, held[id(value)], frame)
        for key, edge in zip(spec.keys, spec.edges, strict=True):
            if type(edge) is Static and id(edge.value) in held:
                raise _error(format_path((*path, key), root), edge.value, held[id(edge.value)], frame)
    for name, edge in zip(output_names(change), change.edges, strict=True):
        if type(edge) is Static and id(edge.value) in held:
            raise _error(name, edge.value, held[id(edge.value)], frame)


def _has_factory(spec: NodeSpec) -> bool:
    """Return whether a node is a defaultdict, whose factory is static."""
    return spec.kind is DICT and spec.extra[0] is not None


def _check_values(plan: Plan, result: Result, frame: Any, tracers: bool) -> None:
    """Raise for a static leaf of the value of a Variable."""
    for slot, value in result.by_slot.items():
        if isinstance(value, Encoded):
            for static in value.static[1]:
                held = None if static is None else find_held(static.value, frame, tracers)
                if static is not None and held is not None:
                    name = names_after(plan, result.change)[slot]
                    raise _error(f"the value of {name}", static.value, held, frame)


def check_keys(paths: Iterable[Sequence[Any]], frame: Any) -> None:
    """Check that no key of a dict in the output is, or holds, an object of the frame that is about to close.

    Args:
      paths: The paths of the leaves, as JAX returns them.
      frame: The frame.

    Raises:
      StructureError: If one does; the message names the path of the dict.
    """
    for path in paths:
        for i, entry in enumerate(path):
            key = key_of(entry)
            held = None if isinstance(key, _ATOMS) else find_held(key, frame, True)
            if held is not None:
                raise errors.StructureError(
                    f"{format_path(map(key_of, path[:i]), 'the output')}: A dict has {an(type(held))} as a key, but "
                    "keys must be static.",
                    "Return it as a value, under a string key.",
                )


def _error(path: str, value: Any, held: Any, frame: Any) -> errors.StructureError:
    if not hasattr(type(held), "__graph_node__"):
        return errors.StructureError(
            f"{path} is {an(type(value))} that holds an array computed inside the function. The array would leak as a "
            f"tracer, because liftnn treats this {type(value).__name__} as static.",
            _TRANSFORMATION if _is_of_optax(value) else _ELSEWHERE,
        )
    copy = frame.name_of(held)
    what = f"the copy of {copy} inside" if copy else f"{an(type(held))} created inside"
    return errors.StructureError(
        f"{path} is {an(type(value))} that holds {what} liftnn.{frame.name}. That object would leak, because liftnn "
        f"treats this {type(value).__name__} as static.",
        "Store the module in an attribute, a list, a dict, a bound method or a functools.partial.",
    )


def _is_of_optax(value: Any) -> bool:
    """Return whether a static value is a function of optax: a learning rate that is traced is kept in its closure."""
    return str(getattr(value, "__module__", None)).partition(".")[0] == "optax"


def holds_tracer(value: Any) -> bool:
    """Return whether a static value holds a tracer in closures, attributes or containers."""
    return find_held(value, None, True) is not None


def find_held(value: Any, frame: Any, tracers: bool) -> Any:
    """Find an object in a static value that must not outlive a trace.

    Args:
      value: The static value.
      frame: Modules and Variables of this frame must not outlive it.
      tracers: Whether to look for tracers too.

    Returns:
      A tracer, or a Module or Variable that belongs to the frame; None if nothing is found.
    """
    stack, seen = [value], {id(value)}
    while stack and len(seen) < _MOST:
        x = stack.pop()
        if hasattr(type(x), "__graph_node__"):
            if frame is not None and x._owner is frame:
                return x
        elif tracers and is_tracer(x):
            return x
        for y in _children(x):
            if not isinstance(y, _ATOMS) and id(y) not in seen:
                seen.add(id(y))
                stack.append(y)
    return None


def _children(x: Any) -> Sequence[Any]:
    """Return the objects that an object refers to."""
    if isinstance(x, jax.Array):
        return ()
    if isinstance(x, Variable):
        return (x._value,)
    if isinstance(x, types.FunctionType):
        cells = [c.cell_contents for c in x.__closure__ or () if not _is_empty(c)]
        return (*cells, *(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).values(), *x.__dict__.values())
    if isinstance(x, weakref.ref):
        return (x(),)
    if isinstance(x, functools.partial):
        return (x.func, *x.args, *x.keywords.values(), *vars(x).values())
    if isinstance(x, types.GeneratorType):
        return tuple(x.gi_frame.f_locals.values()) if x.gi_frame is not None else ()
    if type(x).__module__ == "builtins" or isinstance(x, _CONTAINERS):  # also iterators and bound methods
        return gc.get_referents(x)
    return held_by(x)


def _is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False
