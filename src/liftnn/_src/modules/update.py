"""`update`: set Variables and arrays in a tree of modules from States, all or nothing."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.graph.description import find_all_paths, find_holders
from liftnn._src.graph.graphdef import WalkedTree, walk_tree
from liftnn._src.graph.kinds import VARIABLE
from liftnn._src.graph.merge import set_frozen_arrays
from liftnn._src.graph.slots import ROOT, Slot
from liftnn._src.graph.undo import all_or_nothing
from liftnn._src.modules.children import container_at, set_child
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import (
    Key,
    Path,
    copy_containers,
    format_path,
    is_argument_array,
    is_deleted,
    list_paths,
    type_of,
)
from liftnn._src.variables import frames
from liftnn._src.variables.metadata_methods import adopt_metadata
from liftnn._src.variables.nested import mismatch
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State, as_state
from liftnn._src.variables.variable import Variable, set_value_past_hooks
from liftnn._src.variables.write_errors import write_error


@boundary
def update(tree: Any, /, *states: Mapping[Any, Any]) -> None:
    """Set values and metadata of Variables from States, in place.

    Args:
      tree: A module, or any pytree with modules in it. Arrays in its lists and dicts are replaced there.
      *states: States or plain nested dicts, with all or some of the Variables of the tree, or values for them.
        Set hooks do not run.

    Raises:
      ArgumentTypeError: If an argument is neither a State nor a mapping. Nothing is changed then.
      DonatedError: If the buffer of an array in a State was donated. Nothing is changed then.
      StructureError: If a path is not in the tree, or an array has another shape or dtype than the one that it would
        replace; the message lists the paths. Nothing is changed then.
      TraceContextError: If a Variable belongs to another trace. Nothing is changed then.

    Example:
      >>> import jax, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> liftnn.update(model, jax.tree.map(lambda x: 0 * x, liftnn.state(model)))
      >>> float(abs(model.kernel.value).max())
      0.0
    """
    set_values(tree, states)


def set_values(tree: Any, states: Sequence[Mapping[Any, Any]], same_dtypes: bool = True) -> None:
    """Implement `update`.

    Args:
      tree: A module, or any pytree with modules in it.
      states: The States.
      same_dtypes: Whether an array of another dtype than that which it would replace is an error. The default is True.

    Raises:
      LiftError: See `update`. Nothing is changed then.
    """
    found = [as_state("update", state).flat() for state in states]
    walked = walk_tree(tree)
    graphdef = walked.graphdef
    # Computed when first needed: few States have a path that is not the first.
    alternatives = functools.cache(lambda: _variable_paths(walked))
    writes: list[tuple[Variable[Any], Any]] = []
    misfits: list[str] = []
    gone: list[Path] = []
    set_arrays: dict[int, _Arrays] = {}
    unknown: list[Path] = []

    def find(path: Path) -> Any:
        slot = graphdef.leaves.get(path)
        return alternatives().get(path) if slot is None else walked.leaf(slot)

    for state, leaves in zip(states, found, strict=True):
        for path, new in leaves.items():
            slot, old = graphdef.leaves.get(path), find(path)
            if slot is None and old is None:
                old, new = _find_value(find, path, state)
            if slot is None and old is None:
                unknown.append(path)
                continue
            misfits += _find_misfit(path, unwrap_raw(old), unwrap_raw(new), same_dtypes)
            gone += [path] * any(map(is_deleted, jax.tree.leaves(unwrap_raw(new))))
            if isinstance(old, Variable):
                writes.append((old, new))
            elif slot is not None:
                holder, key = _find_holder(tree, walked, path, slot)
                set_arrays.setdefault(id(holder), _Arrays(slot.node, holder, {})).new[key] = unwrap_raw(new)
    if unknown:
        raise mismatch("The State does not fit the module", (), unknown)
    if misfits:
        raise errors.StructureError(
            f"The State does not fit the module:\n{list_paths(misfits, most=32)}",
            "Pass arrays of the shapes and dtypes in the module. To give a Variable another shape, assign to its "
            "`value`.",
        )
    if gone:
        raise errors.DonatedError(
            f"The buffer of {format_path(gone[0])} in the State was donated earlier and is gone.",
            "Keep the State of a copy, as in `liftnn.state(liftnn.clone(model))`: `state` shares its arrays with the "
            "module.",
        )
    for variable, _ in writes:
        if not frames.may_write(variable._owner):
            raise write_error(variable, "the value")
    _write_all(walked, writes, list(set_arrays.values()))


def _find_value(find: Callable[[Path], Any], path: Path, state: Mapping[Any, Any]) -> tuple[Any, Any]:
    """Return the Variable whose value is a dict with an entry at a path, and its new value; None without one."""
    for end in reversed(range(len(path))):
        old = find(path[:end])
        if isinstance(old, Variable) and isinstance(old.raw_value, Mapping):
            new = functools.reduce(operator.getitem, path[:end], state)
            if not isinstance(new, Mapping):  # a Variable, with metadata that the module does not have
                break
            if isinstance(new, State):
                return old, new.to_pure_dict()
            return old, jax.tree.map(unwrap_raw, new, is_leaf=lambda x: isinstance(x, Variable))
    return None, None


class _Arrays(NamedTuple):
    """New array leaves of one object.

    Args:
      node: Its number; -1 for a container outside of modules.
      holder: The object.
      new: The arrays by key.
    """

    node: int
    holder: Any
    new: dict[Any, Any]


def _write_all(
    walked: WalkedTree, writes: list[tuple[Variable[Any], Any]], set_arrays: list[_Arrays]
) -> None:
    """Set Variables, and array leaves in their holders: all or nothing."""
    specs = walked.graphdef.specs
    frozen = {x.node: x.new for x in set_arrays if x.node != ROOT and specs[x.node].kind.frozen}
    settable = [x for x in set_arrays if x.node not in frozen]

    def write() -> None:
        for variable, new in writes:
            _write(variable, new)
        for _, holder, arrays in settable:
            for key, x in arrays.items():
                set_child(holder, key, x)
        if frozen:
            set_frozen_arrays(walked.graphdef, walked.objects, frozen, frames.owner_now())

    all_or_nothing((*(x for x, _ in writes), *(x.holder for x in settable)), write)


def _write(variable: Variable[Any], new: Any) -> None:
    """Set the value of a Variable, and its metadata if `new` is a Variable."""
    if isinstance(new, Variable):
        adopt_metadata(variable, new)
    set_value_past_hooks(variable, copy_containers(unwrap_raw(new)))


def _find_misfit(path: Path, old: Any, new: Any, same_dtypes: bool) -> list[str]:
    """Return a line that tells how an array differs from the one that it would replace, if it does."""
    arrays = (jax.Array, np.ndarray)
    if (
        isinstance(old, arrays)
        and isinstance(new, arrays)
        and old.shape == new.shape
        and old.dtype == new.dtype
    ):
        return []  # at once: `jnp.result_type` costs more than all the rest of the leaf
    if not (is_argument_array(old) and is_argument_array(new)):
        return []
    if jnp.shape(old) != jnp.shape(new):
        return [f"{format_path(path)}: shape {jnp.shape(new)} in the State, {jnp.shape(old)} in the module"]
    if same_dtypes and jnp.result_type(old) != jnp.result_type(new):  # 64 bits may be 32
        return [f"{format_path(path)}: {type_of(new)} in the State, {type_of(old)} in the module"]
    return []


def _find_holder(tree: Any, walked: WalkedTree, path: Path, slot: Slot) -> tuple[Any, Key]:
    """Return the object that holds an array leaf, and the key.

    It raises an error if the array cannot be set there: something immutable is on the way, or another trace's.
    """
    graphdef = walked.graphdef
    specs = graphdef.specs
    if slot.node == ROOT:
        holder = container_at(tree, path[:-1]) if path else None
        if holder is not None:
            return holder, path[-1]
    changed = {slot.node, *find_holders(specs, {slot.node})} if slot.node != ROOT else set()
    if not changed or any(e in changed and specs[e].kind.frozen for e in graphdef.edges if type(e) is int):
        raise errors.StructureError(
            f"{format_path(path)} cannot be set in place: no module, list or dict holds it.",
            "Store it as an attribute of a Module, or take the new value from the State.",
        )
    for holder in (walked.objects[n] for n in changed):
        if hasattr(type(holder), "__graph_node__") and not frames.may_write(holder._owner):
            raise write_error(holder, f"the attribute {path[-1]!r}")
    return walked.objects[slot.node], slot.key


def _variable_paths(walked: WalkedTree) -> dict[Path, Variable[Any]]:
    """Return every path of every Variable, so that a shared one is found under each of its paths."""
    return {
        path: frames.resolve(walked.objects[number])
        for number, paths in find_all_paths(walked.graphdef).items()
        if walked.graphdef.specs[number].kind is VARIABLE
        for path in paths
    }
