"""`device_put`: move modules, and trees of them, to a device or a sharding, in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from liftnn import errors
from liftnn._src.graph.graphdef import WalkedTree, walk_tree
from liftnn._src.graph.kinds import is_object
from liftnn._src.graph.slots import ROOT, Slot
from liftnn._src.modules.iterate import root_leaves
from liftnn._src.modules.update import update
from liftnn._src.prefixes.prefix import as_prefixes, broadcast_over
from liftnn._src.prefixes.spread import Spread, Start
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, format_path, list_paths
from liftnn._src.variables.axis_rules import mesh_text
from liftnn._src.variables.declared import declare, find_problem, named
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

T = TypeVar("T")


@boundary
def device_put(x: T, device: Any) -> T:
    """Move the arrays of modules, and other arrays, to a device or a sharding, as `jax.device_put` moves arrays.

    A module is changed in place and stays the same object, with all that it shares: the values of its Variables, with
    their random keys, and its arrays are moved. Arrays outside of modules are returned in new places.

    Args:
      x: A module, or any pytree of modules and arrays, such as `(model, optimizer)`.
      device: A `jax.Device` or a sharding for all arrays; or a tree prefix of `x` with such entries, in which a module
        is one leaf. The entry of a module may be a `StateSharding`, or a State of shardings as from
        `get_named_sharding`; None in it leaves an array where it is.

    Returns:
      The tree with the same modules.

    Raises:
      AliasingError: If a Variable is reached with two different entries. Nothing is changed then.
      ArgumentError: If `device` is not a tree prefix of `x`.
      ArgumentTypeError: If an entry is neither a device nor a sharding, such as a PartitionSpec or a Mesh.
      FilterError: If a Variable matches none of the filters of a `StateSharding`.
      ShardingError: If an array cannot have the sharding; the message lists all of them. Nothing is changed then.
      TraceContextError: If a module belongs to another trace. Nothing is changed then.

    Example:
      >>> import jax, liftnn
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> liftnn.device_put(model, jax.devices()[0]) is model
      True
      >>> model.kernel.value.committed
      True
    """
    treedef = jax.tree.structure(x, is_leaf=is_object)
    entries = broadcast_over(as_prefixes(device), treedef, "x")
    roots = root_leaves(x)
    walked = walk_tree(x)
    spread = _spread(walked, entries, [format_path(path) for path, _ in roots])
    inside: dict[Path, Any] = {}
    outside: dict[Path, Any] = {}
    problems: list[str] = []
    for path, slot in walked.graphdef.leaves.items():
        leaf = walked.leaf(slot)
        place = spread.of(slot, _value_of(leaf))
        try:
            (outside if slot.node == ROOT else inside)[path] = _move(leaf, place)
        except (TypeError, ValueError):  # JAX's own says the same without the path
            _check_place(place)
            problems.append(_describe_problem(format_path(path), leaf, place))
    if problems:
        raise errors.ShardingError(f"These arrays cannot be moved:\n{list_paths(problems)}")
    update(x, State.from_flat(inside))
    return jax.tree.unflatten(treedef, [outside.get(path, leaf) for path, leaf in roots])


def _spread(walked: WalkedTree, entries: Sequence[Any], names: Sequence[str]) -> Spread:
    """Return the places of all arrays, from those of the leaves of a tree and their names."""
    spread = Spread(walked.graphdef.specs, none_yields=True)
    for i, (edge, place, name) in enumerate(zip(walked.graphdef.edges, entries, names, strict=True)):
        spread.add_leaf(Slot(ROOT, i), Start(place, name, edge, spread.specs))
    return spread


def _check_place(place: Any) -> None:
    """Raise ArgumentTypeError if arrays cannot be moved there because it is neither a device nor a sharding."""
    for cls, remedy in _REMEDIES.items():
        if isinstance(place, cls):
            raise errors.ArgumentTypeError(
                f"device_put takes a device or a sharding, not {place!r:.80}.", remedy
            ) from None


_REMEDIES: dict[Any, str] = {
    str: "Pass a device, such as `jax.devices('cpu')[0]`.",
    int: "Pass a device, such as `jax.devices()[0]`.",
    PartitionSpec: "Pass a sharding: `jax.sharding.NamedSharding(mesh, spec)`.",
    Mesh: "Pass a sharding on the mesh, such as `jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())`.",
}
"""What to pass in place of something that is neither a device nor a sharding."""


def _describe_problem(path: str, leaf: Any, place: Any) -> str:
    """Return a line about an array that cannot be moved: its path and shape, the place, and why."""
    shape = getattr(_value_of(leaf), "shape", ())
    name = named(path, leaf, shape)
    if not isinstance(place, NamedSharding):
        return f"{name}: {place}"
    problem = find_problem(declare(place.spec, {}), shape, place.mesh)
    return f"{name}, {place.spec} on the mesh ({mesh_text(place.mesh)}){': ' if problem else ''}{problem}"


def _move(leaf: Any, place: Any) -> Any:
    """Return the value of a Variable, or an array, at its new place."""
    value = _value_of(leaf)
    if place is None:
        return value
    return jax.tree.map(
        lambda a: jax.device_put(a, place) if isinstance(a, (jax.Array, np.ndarray)) else a, value
    )


def _value_of(leaf: Any) -> Any:
    """Return the value of a Variable, or an array."""
    return leaf.raw_value if isinstance(leaf, Variable) else leaf


publish(device_put)
