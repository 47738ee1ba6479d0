"""Errors of `shard_map` specs that name the attribute path, where JAX only knows positions in flat lists."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from liftnn import errors
from liftnn._src.lifting.contract import Plan
from liftnn._src.mapping.axis_errors import MappedLeaf, TraceAgain, find_rejected
from liftnn._src.prefixes.prefix import StateSharding
from liftnn._src.trees import format_path, key_of


class SplitAxes(NamedTuple):
    """The mesh axes that a `shard_map` splits over.

    Args:
      names: The names.
      sizes: The number of devices along each axis.
    """

    names: tuple[Any, ...]
    sizes: dict[Any, int]

    @staticmethod
    def of(mesh: Any, names: Collection[Any]) -> SplitAxes:
        """Return the axes of a mesh (None: the mesh of `jax.set_mesh`) with some names, or all without names."""
        sizes = dict((jax.sharding.get_abstract_mesh() if mesh is None else mesh).shape)
        chosen = tuple([name for name in sizes if not names or name in names])
        return SplitAxes(chosen, {name: sizes[name] for name in chosen})


def entries_of_spec(spec: Any) -> tuple[Any, ...]:
    """Return the entry of each array axis in a spec."""
    found = getattr(spec, "partitions", None)  # iteration raises if the spec is also reduced or unreduced
    return tuple(spec) if found is None else found  # JAX 0.10.0


def axes_of_spec(spec: PartitionSpec) -> tuple[Any, ...]:
    """Return the mesh axes along which the shards of a spec differ."""
    entries = [entry if isinstance(entry, tuple) else (entry,) for entry in entries_of_spec(spec)]
    return (*(name for entry in entries for name in entry if name is not None), *spec.unreduced)


def check_specs(option: str, specs: Any) -> None:
    """Raise ArgumentTypeError if a tree of specs contains another object.

    Args:
      option: The name of the option, `"in_specs"` or `"out_specs"`.
      specs: A tree of specs.

    Raises:
      ArgumentTypeError: If a leaf is neither a `PartitionSpec` nor None nor `StateSharding`.
    """
    for leaf in jax.tree.leaves(specs):
        for spec in [s for _, s in leaf.pairs] if isinstance(leaf, StateSharding) else [leaf]:
            if spec is not None and not isinstance(spec, PartitionSpec):
                raise errors.ArgumentTypeError(
                    f"`{option}` contains {spec!r}, which is not a spec.",
                    "A spec is a jax.sharding.PartitionSpec; for a module it may also be a liftnn.StateSharding.",
                )


def find_bad_spec(
    plan: Plan, leaves: Sequence[Any], specs: Sequence[PartitionSpec], axes: SplitAxes
) -> errors.LiftError | None:
    """Find an argument with a spec that does not match the mesh or the array.

    Args:
      plan: The arguments.
      leaves: The dynamic leaves.
      specs: The spec of each leaf.
      axes: The mesh axes.

    Returns:
      The error to raise, or None if the specs are valid.
    """
    for slot, value, spec in zip(plan.slots, leaves, specs, strict=True):
        name = plan.typed_name(slot)
        unknown = _unknown_axis(name, spec, axes)
        if unknown is not None:
            return unknown
        for leaf in jax.tree.leaves(value):
            problem = _misfit(np.shape(leaf), spec, axes)
            if problem:
                return errors.ArgumentError(
                    f"{name} cannot be sharded by {spec}: its shape is {np.shape(leaf)}, and {problem}.",
                    "Use another spec for it in `in_specs`; a liftnn.StateSharding gives each Variable of a module its "
                    "own spec.",
                )
    return None


def find_unknown_axis(out_specs: Any, axes: SplitAxes) -> errors.LiftError | None:
    """Find an axis in the specs of the output that the mesh does not have.

    Args:
      out_specs: A tree of specs.
      axes: The mesh axes.

    Returns:
      The error to raise, or None if the mesh has all axes.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(out_specs):
        for spec in [s for _, s in leaf.pairs] if isinstance(leaf, StateSharding) else [leaf]:
            name = format_path(map(key_of, path), "out_specs")
            unknown = None if spec is None else _unknown_axis(name, spec, axes)
            if unknown is not None:
                return unknown
    return None


def _unknown_axis(name: str, spec: PartitionSpec, axes: SplitAxes) -> errors.LiftError | None:
    """Return the error for an axis in a spec that the mesh does not have; None if there is none."""
    for axis in axes_of_spec(spec):
        if axis not in axes.sizes:
            return errors.ArgumentError(
                f"{name} has the spec {spec}, but {axis!r} is not a mesh axis of this shard_map. Its axes are: "
                f"{', '.join(map(repr, axes.names)) or 'none'}.",
                "Use one of these axes in the spec, or pass a `mesh` and `axis_names` with this axis.",
            )
    return None


def _misfit(shape: tuple[int, ...], spec: PartitionSpec, axes: SplitAxes) -> str:
    """Return the reason why an array cannot be sharded; an empty string if it can."""
    if len(spec) > len(shape):
        return f"the spec has length {len(spec)}"
    for axis, (size, entry) in enumerate(zip(shape, entries_of_spec(spec), strict=False)):
        names = axes_of_spec(PartitionSpec(entry))
        shards = int(np.prod([axes.sizes[name] for name in names]))
        if size % shards:
            return f"axis {axis} cannot be divided into {shards} equal shards"
    return ""


def find_varying_output(trace: TraceAgain, plan: Plan, axes: SplitAxes) -> errors.LiftError | None:
    """Find the output of a `shard_map` that JAX rejects.

    Args:
      trace: Maps the function again.
      plan: The arguments.
      axes: The mesh axes.

    Returns:
      The error to raise, or None if the specs are valid.
    """
    return find_rejected(trace, plan, _no_room_for_spec, lambda part: True, lambda part: _varies(part, axes))


def _no_room_for_spec(part: MappedLeaf) -> errors.LiftError | None:
    """Return the error for an array with fewer axes than its spec, or None."""
    for shape in part.shapes:
        if part.prefix is not None and len(part.prefix) > len(shape):
            return errors.ArgumentError(
                f"Cannot apply the spec {part.prefix} to {part.name}: its shape in each shard is {shape}.",
                f"Use a spec of at most length {len(shape)} in `out_specs` or, for a part of an argument, in "
                "`in_specs`.",
            )
    return None


def _varies(part: MappedLeaf, axes: SplitAxes) -> errors.LiftError:
    """Return the error for a leaf that differs between shards although its spec is replicated."""
    kind, name = part.kind, part.name
    spec = PartitionSpec() if part.prefix is None else part.prefix
    along = " or ".join(repr(axis) for axis in axes.names if axis not in axes_of_spec(spec))
    if kind == "output":
        return errors.ArgumentError(
            f"The spec {spec} of {name} requires all shards along {along} to return the same value, but they differ.",
            "Name the axis in `out_specs`, or reduce the value over it (for example with `jax.lax.pmean`).",
        )
    what = "attach" if kind == "attached" else "write"
    return errors.SharedWriteError(
        f"The spec {spec} of {name} requires all shards along {along} to {what} the same value, but they differ.",
        "Shard the Variable as well (`in_specs`, `StateSharding`), or reduce the value before writing it (for example "
        "with `jax.lax.pmean`).",
    )
