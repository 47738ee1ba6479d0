"""`pop`: remove Variables and arrays from a tree of modules, with their attributes."""

from __future__ import annotations

import functools
import operator
import types
from typing import Any

from liftnn import errors
from liftnn._src.compat.flat_state import sort_states
from liftnn._src.filters import Filter, first_match, to_predicates
from liftnn._src.graph.graphdef import WalkedTree, walk_tree
from liftnn._src.graph.kinds import CELL, VARIABLE
from liftnn._src.graph.slots import Slot
from liftnn._src.modules import verbs
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Key, Path, an, format_path
from liftnn._src.variables import frames
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Empty
from liftnn._src.variables.write_errors import write_error


@boundary
def pop(node: Any, *filters: Filter) -> Any:
    """Remove the matching Variables and arrays from a tree of modules and return them.

    Args:
      node: A module, a State, or any pytree with modules in it.
      *filters: One or more filters; the first match wins.

    Returns:
      A State for one filter, a tuple of States for several. Their attributes are deleted; those of a module that a
      transform has captured stay and hold `Empty`, since its structure must not change, and so do Variables in the
      closure of a function or in a tuple.

    Raises:
      FilterError: If no filter is given, or an argument is not a filter.
      StructureError: If an array matches that an immutable object or the closure of a function holds. Nothing is
        changed then.
      TraceContextError: If a Variable, or the holder of an array, belongs to another trace. Nothing is changed then.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> model = nnx.Module()
      >>> model.sow(nnx.Intermediate, "y", jnp.ones(2))
      True
      >>> nnx.pop(model, nnx.Intermediate)["y"].value[0].shape, hasattr(model, "y")
      ((2,), False)
    """
    if isinstance(node, State) and filters:
        return _pop_entries(node, filters)
    # In an object that holds them, plain lists and dicts are mutable nodes too.
    walked = walk_tree(types.SimpleNamespace(tree=node))
    arrays = _find_arrays(walked, filters)
    leaves = [{path: walked.leaf(slot) for path, slot in found.items()} for found in arrays]
    popped = verbs.pop(node, *filters)
    states: tuple[State, ...] = (popped,) if isinstance(popped, State) else popped
    _remove(walked, {slot for found in arrays for slot in found.values()})
    if any(arrays):
        states = tuple([x | State.from_flat(more) for x, more in zip(states, leaves, strict=True)])
    states = sort_states(states)
    return states[0] if len(states) == 1 else states


def _pop_entries(state: State, filters: tuple[Filter, ...]) -> Any:
    """Remove the matching Variables and arrays from a State and return them."""
    popped = state.filter(*filters)
    for part in (popped,) if isinstance(popped, State) else popped:
        for *above, key in part.flat():
            holder = functools.reduce(operator.getitem, above, state)
            if isinstance(holder, State):  # not a Variable, whose metadata go with it
                del holder[key]
    return popped


def _find_arrays(walked: WalkedTree, filters: tuple[Filter, ...]) -> list[dict[Path, Slot]]:
    """Return the slots of the arrays that match each filter, by path; raise an error if one cannot be removed."""
    predicates = to_predicates(filters)
    parts: list[dict[Path, Slot]] = [{} for _ in predicates]
    for (_, *below), slot in walked.graphdef.leaves.items():
        path, x = tuple(below), walked.leaf(slot)
        part = -1 if isinstance(x, Variable) else first_match(predicates, path, x)
        if part >= 0:
            _check_removable(walked, path, slot)
            parts[part][path] = slot
    return parts


def _check_removable(walked: WalkedTree, path: Path, slot: Slot) -> None:
    """Raise an error for an array that an immutable object holds, or an object of another trace."""
    holder = walked.objects[slot.node]
    kind = walked.graphdef.specs[slot.node].kind
    if kind.frozen or kind is CELL:
        what = "the closure of a function" if kind is CELL else f"{an(type(holder))}, which is immutable"
        raise errors.StructureError(
            f"{format_path(path)} cannot be removed: it is held by {what}.",
            "Hold it in a Module, list or dict, or pass a filter that does not match it.",
        )
    if hasattr(type(holder), "__graph_node__") and not frames.may_write(holder._owner):
        raise write_error(holder, f"the attribute {slot.key!r}")


def _remove(walked: WalkedTree, arrays: set[Slot]) -> None:
    """Delete arrays and emptied Variables from what holds them: the last first, since elements of a list move up."""
    for number, (holder, spec) in enumerate(zip(walked.objects, walked.graphdef.specs, strict=True)):
        if spec.kind is CELL or spec.kind.frozen or not spec.keys:
            continue
        if hasattr(type(holder), "__graph_node__") and not frames.may_write(holder._owner):
            continue
        _, keys, children = spec.kind.flatten(holder)
        for key, x in [*zip(keys, children, strict=True)][::-1]:
            if Slot(number, key) in arrays or (spec.kind is not VARIABLE and _is_emptied(x)):
                _remove_child(holder, key)


def _is_emptied(x: Any) -> bool:
    return isinstance(x, Variable) and x.raw_value is Empty


def _remove_child(holder: Any, key: Key) -> None:
    """Delete an attribute or element."""
    if isinstance(key, str) and not isinstance(holder, dict):
        delattr(holder, key)
    else:
        del holder[key]
