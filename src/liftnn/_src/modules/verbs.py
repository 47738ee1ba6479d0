"""Functions on live trees of modules: find Variables, pop them, find and replace shared objects."""

from __future__ import annotations

from typing import Any, overload

from liftnn import errors
from liftnn._src.filters import Filter, check_tags, first_match, to_predicates
from liftnn._src.graph.description import find_all_paths
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.undo import Former, all_or_nothing, restore
from liftnn._src.modules.children import set_child
from liftnn._src.modules.iterate import root_leaves
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import (
    Path,
    an,
    format_path,
)
from liftnn._src.variables import frames
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable, set_value_past_hooks
from liftnn._src.variables.variable_types import Empty
from liftnn._src.variables.write_errors import write_error


def find_variables(tree: Any, *filters: Filter) -> dict[Path, Variable[Any]]:
    """Return the live Variables that match, by first path.

    Args:
      tree: A module, or any pytree with modules in it.
      *filters: The filters; a Variable has to match one of them.

    Returns:
      The Variables themselves, in order.

    Raises:
      FilterError: If an argument is not a filter.
    """
    predicates, leaves = to_predicates(filters), walk_tree(tree).leaves()
    return {p: x for p, x in leaves if isinstance(x, Variable) and first_match(predicates, p, x) >= 0}


@overload
def pop(tree: Any, filter: Filter, /) -> State: ...


@overload
def pop(tree: Any, first: Filter, second: Filter, /, *others: Filter) -> tuple[State, ...]: ...


@boundary
def pop(tree: Any, /, *filters: Filter) -> State | tuple[State, ...]:
    """Remove the values of the matching Variables from a tree of modules and return them.

    The Variables stay in the tree and hold `Empty`, so the structure does not change. Variables that are already empty
    are skipped.

    Args:
      tree: A module, or any pytree with modules in it.
      *filters: One or more filters; the first match wins.

    Returns:
      A State for one filter, a tuple of States for several.

    Raises:
      FilterError: If no filter is given, or an argument is not a filter.
      TraceContextError: If a Variable belongs to another trace. Nothing is changed then.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Module()
      >>> model.sow(liftnn.Intermediate, "y", jnp.ones(2))
      True
      >>> liftnn.pop(model, liftnn.Intermediate)["y"].value[0].shape, model.y.value
      ((2,), Empty)
    """
    if not filters:
        raise errors.FilterError(
            "pop needs at least one filter.",
            "Pass one, such as pop(model, liftnn.Intermediate).",
        )
    predicates = to_predicates(filters)
    parts: list[dict[Path, Any]] = [{} for _ in predicates]
    emptied: list[Variable[Any]] = []
    leaves = list(walk_tree(tree).leaves())
    check_tags(predicates, leaves)
    for path, x in leaves:
        if not isinstance(x, Variable) or x.raw_value is Empty:
            continue
        part = first_match(predicates, path, x)
        if part >= 0:
            if not frames.may_write(x._owner):
                raise write_error(x, "the value")
            parts[part][path] = x.copy()
            emptied.append(x)
    states = tuple(State.from_flat(p) for p in parts)
    former = list(map(Former, emptied))
    try:
        for x in emptied:
            set_value_past_hooks(x, Empty)
        return states[0] if len(states) == 1 else states
    except BaseException:  # from a signal handler: the States would be lost
        restore(former)
        raise


@boundary
def find_shared(tree: Any, /) -> dict[Path, list[Path]]:
    """Find the modules, Variables and containers that a tree of modules reaches by more than one path.

    Args:
      tree: A module, or any pytree with modules in it.

    Returns:
      The other paths of each shared object, by its first path.

    Raises:
      StructureError: If something in the tree cannot be part of a module.

    Example:
      >>> import liftnn
      >>> model = liftnn.Module()
      >>> model.a = model.b = liftnn.Module()
      >>> liftnn.find_shared(model)
      {('a',): [('b',)]}
    """
    graphdef, _, _ = walk_tree(tree)
    return {paths[0]: paths[1:] for paths in find_all_paths(graphdef).values() if len(paths) > 1}


@boundary
def replace_all(tree: Any, old: Any, new: Any) -> int:
    """Replace one object by another wherever a tree of modules holds it, also in metadata of Variables.

    Args:
      tree: A module, or any pytree with modules in it; the tree itself must not be `old`.
      old: The Module, Variable or array to replace.
      new: The replacement.

    Returns:
      The number of replacements.

    Raises:
      ArgumentError: If `old` is `tree` or one of its leaves, or if a tuple or another immutable node holds it.
      TraceContextError: If a module that holds it belongs to another trace.
      Exception: What the `__setattr__` of a class raises. Nothing is replaced then.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> liftnn.replace_all(model, model.bias, liftnn.Param(jnp.ones(3)))
      1
    """
    if tree is old:
        raise errors.ArgumentError(
            "replace_all cannot replace the tree itself.",
            "Use the new object instead.",
        )
    for path, leaf in root_leaves(tree):
        if leaf is old:
            raise errors.ArgumentError(
                f"replace_all cannot replace {format_path(path)}: it is a leaf of the tree itself.",
                "Build a new tree with the new object instead.",
            )
    graphdef, objects, _ = walk_tree(tree)
    places: list[tuple[Any, Any]] = []
    for holder, spec in zip(objects, graphdef.specs, strict=True):
        if not spec.keys:
            continue
        _, keys, children = spec.kind.flatten(holder)
        found = [key for key, child in zip(keys, children, strict=True) if child is old]
        if found and spec.kind.frozen:
            raise errors.ArgumentError(
                f"replace_all cannot replace an object in {an(spec.type)}, which is immutable.",
                "Store the object in a list, a dict or an attribute of a Module instead.",
            )
        places += [(holder, key) for key in found]

    def write() -> None:
        for holder, key in places:
            set_child(holder, key, new)

    all_or_nothing([holder for holder, _ in places], write)
    return len(places)
