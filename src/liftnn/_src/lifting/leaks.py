"""Find leaks: tracers and copies of modules that would outlive their trace inside a static value, such as a closure.

Iterators are static values that are used up, so a compiled function must not return one.
"""

from __future__ import annotations

import functools
import gc
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from liftnn import errors
from liftnn._src.graph.checks import ITERATORS
from liftnn._src.graph.description import NodeSpec
from liftnn._src.graph.kinds import DICT, PYTREE, VARIABLE
from liftnn._src.instances import held_by
from liftnn._src.lifting.after import names_after, output_names, paths_after
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.lifting.values import Encoded
from liftnn._src.static_values.static import Static
from liftnn._src.trees import an, format_path, is_traced_ref, is_tracer, key_of
from liftnn._src.variables import frames
from liftnn._src.variables.variable import Variable

_PARTLESS = (str, bytes, int, float, complex, type, type(None), types.ModuleType, types.BuiltinFunctionType)
_SEARCHED_CONTAINERS = tuple(ITERATORS)
_MOST_OBJECTS = 1000
"""The maximum number of objects to visit: a static value may refer to the whole program."""


_ELSEWHERE = "Store the array in an attribute, a Variable, or a list, dict or dataclass of them."
_TRANSFORMATION = (
    "Create the transformation of optax outside, as in `tx = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)`, "
    "and set the number inside: `optimizer.opt_state.hyperparams['learning_rate'] = x`."
)


def check_static_values(plan: Plan, result: Result, frame: Any) -> None:
    """Check that new static values hold no tracers, no objects of the frame that is about to close, and no iterators.

    Args:
      plan: The arguments.
      result: What was returned, created and changed.
      frame: The frame.

    Raises:
      StructureError: If a static value holds one, or is one; the message names its path.
    """
    tracers = frame.outer is frames.PLAIN  # in a nested frame, a tracer may belong to an outer trace
    change = result.change
    _check_values(plan, result, frame, tracers)
    nodes = [(n, _find_parts(spec)) for n, spec in (*change.changed, *enumerate(change.new, change.known))]
    outputs = [edge.value for edge in change.edges if type(edge) is Static]
    values = [*outputs, *(part.value for _, parts in nodes for part in parts)]
    leaks = {
        id(value): found for value in values if (found := _find_leak(value, plan, frame, tracers)) is not None
    }
    if not leaks:
        return
    after = paths_after(plan, change)
    for number, parts in nodes:
        root, path = after[number]
        for part in parts:
            if id(part.value) in leaks:
                name = part.what + format_path((*path, *part.keys), root)
                raise _error(name, part.value, leaks[id(part.value)], frame)
    for name, edge in zip(output_names(change), change.edges, strict=True):
        if type(edge) is Static and id(edge.value) in leaks:
            raise _error(name, edge.value, leaks[id(edge.value)], frame)


class _Part(NamedTuple):
    """A static value that a node holds.

    Args:
      value: The value.
      keys: The key under which the node holds it, if there is one.
      what: Else what it is, for messages.
    """

    value: Any
    keys: tuple[Any, ...] = ()
    what: str = ""


def _find_parts(spec: NodeSpec) -> list[_Part]:
    """Find the static values that a node holds: children, metadata, keys, and static parts of pytrees."""
    pairs = zip(spec.keys, spec.edges, strict=True)
    parts = [_Part(edge.value, (key,)) for key, edge in pairs if type(edge) is Static]
    if spec.kind is VARIABLE:
        parts += [_Part(value, (name,)) for name, value in spec.extra.entries.items()]
    elif spec.kind is DICT:
        if spec.extra[0] is not None:  # a defaultdict, whose factory is static
            parts.append(_Part(spec.extra[0].value, ("default_factory",)))
        parts += [_Part(key, what="a key of ") for key in spec.keys if not isinstance(key, _PARTLESS)]
    elif spec.kind is PYTREE and isinstance(spec.extra, jax.tree_util.PyTreeDef):
        parts.append(_Part((spec.extra.node_data() or (None, None))[1], what="the static part of "))
    return parts


def _find_leak(value: Any, plan: Plan, frame: Any, tracers: bool) -> Any:
    """Return what must not outlive the trace in a static value: the value itself if it is new and can't be kept."""
    leaked = find_leak(value, frame, tracers)
    return value if leaked is None and _is_new(value, plan) else leaked


def _check_values(plan: Plan, result: Result, frame: Any, tracers: bool) -> None:
    """Raise for a static leaf of the value of a Variable."""
    for slot, value in result.by_slot.items():
        if isinstance(value, Encoded):
            for static in value.static[1]:
                if static is None:
                    continue
                leaked = _find_leak(static.value, plan, frame, tracers)
                if leaked is not None:
                    name = names_after(plan, result.change)[slot]
                    raise _error(f"the value of {name}", static.value, leaked, frame)


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
            leaked = None if isinstance(key, _PARTLESS) else find_leak(key, frame, True)
            if leaked is not None:
                raise errors.StructureError(
                    f"{format_path(map(key_of, path[:i]), 'the output')}: A dict has {an(type(leaked))} as a key, but "
                    "keys must be static.",
                    "Return it as a value, under a string key.",
                )


def _is_new(value: Any, plan: Plan) -> bool:
    """Return whether a value that no argument holds is an iterator of Python or a traced mutable array."""
    is_iterator = isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools")
    return (is_iterator or is_traced_ref(value)) and not any(
        type(e) is Static and e.value is value for spec in plan.graph.specs for e in spec.edges
    )


def _error(path: str, value: Any, leaked: Any, frame: Any) -> errors.StructureError:
    if is_traced_ref(value):
        return errors.StructureError(
            f"{path} is a mutable array (jax.Ref), which liftnn.{frame.name} cannot return or store.",
            "Return or store what it holds, `ref[...]`. One that is an argument is changed in place.",
        )
    if leaked is value:
        return errors.StructureError(
            f"{path} is {an(type(value))}, which can be read only once, but a compiled function makes one object for "
            "all of its calls.",
            "Make it a list or a tuple of its elements.",
        )
    if not hasattr(type(leaked), "__graph_node__"):
        return errors.StructureError(
            f"{path} is {an(type(value))} that holds an array computed inside the function. The array would leak as a "
            f"tracer, because liftnn treats this {type(value).__name__} as static.",
            _TRANSFORMATION if _is_of_optax(value) else _ELSEWHERE,
        )
    copy = frame.name_of(leaked)
    what = f"the copy of {copy} inside" if copy else f"{an(type(leaked))} created inside"
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
    return find_leak(value, None, True) is not None


def children_of(x: Any) -> Sequence[Any]:
    """Return the objects that an object refers to.

    Args:
      x: The object.
    """
    if isinstance(x, jax.Array):
        return ()
    if isinstance(x, Variable):
        return (x._value,)
    if isinstance(x, types.FunctionType):
        keyword_defaults = (x.__kwdefaults__ or {}).values()
        return (*(x.__closure__ or ()), *(x.__defaults__ or ()), *keyword_defaults, *x.__dict__.values())
    if isinstance(x, weakref.ref):
        return (x(),)
    if isinstance(x, functools.partial):
        return (x.func, *x.args, *x.keywords.values(), *vars(x).values())
    if isinstance(x, types.GeneratorType):
        return tuple(x.gi_frame.f_locals.values()) if x.gi_frame is not None else ()
    # Built-in classes are also those of cells, iterators and bound methods.
    if type(x).__module__ == "builtins" or isinstance(x, _SEARCHED_CONTAINERS):
        return gc.get_referents(x)
    return held_by(x)


def find_leak(
    value: Any, frame: Any, tracers: bool, children: Callable[[Any], Sequence[Any]] = children_of
) -> Any:
    """Find an object in a static value that must not outlive a trace.

    Args:
      value: The static value.
      frame: Modules and Variables of this frame must not outlive it.
      tracers: Whether to look for tracers too.
      children: Returns the objects in an object in which to look. The default is all that it refers to.

    Returns:
      A tracer, or a Module or Variable that belongs to the frame; None if nothing is found.
    """
    stack, seen = [value], {id(value)}
    while stack and len(seen) < _MOST_OBJECTS:
        x = stack.pop()
        if hasattr(type(x), "__graph_node__"):
            if frame is not None and _owner_of(x) is frame:
                return x
        elif tracers and is_tracer(x):
            return x
        for y in children(x):
            if not isinstance(y, _PARTLESS) and id(y) not in seen:
                seen.add(id(y))
                stack.append(y)
    return None


def _owner_of(x: Any) -> Any:
    """Return the frame in which a Module or Variable was created, maybe under a raw JAX transform in it."""
    return x._owner.frame if type(x._owner) is frames.RawTrace else x._owner
