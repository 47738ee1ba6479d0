"""What is wrong with the specs of a `shard_map`, by attribute path: JAX only knows the flat lists that it was given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from liftnn import errors
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.mapping.axis_errors import find_culprit, parts_of_result
from liftnn._src.prefixes.prefix import Prefix, StateSharding
from liftnn._src.tracebacks import at_line
from liftnn._src.variables import frames


class Axes(NamedTuple):
    """The mesh axes that a function is split over.

    Args:
      names: Their names.
      sizes: How many devices there are along each.
    """

    names: tuple[Any, ...]
    sizes: dict[Any, int]

    @staticmethod
    def of(mesh: Any, names: Collection[Any]) -> Axes:
        """The axes of a mesh, None for that of `jax.set_mesh`, with these names, or all if there are none."""
        sizes = dict((jax.sharding.get_abstract_mesh() if mesh is None else mesh).shape)
        chosen = tuple([name for name in sizes if not names or name in names])
        return Axes(chosen, {name: sizes[name] for name in chosen})


def axes_of_spec(spec: PartitionSpec) -> tuple[Any, ...]:
    """The mesh axes that a spec mentions."""
    entries = [entry if isinstance(entry, tuple) else (entry,) for entry in spec]
    return tuple([name for entry in entries for name in entry if name is not None])


def check_specs(option: str, specs: Any) -> None:
    """Refuses what is no spec.

    Args:
      option: The option it was given for, `"in_specs"` or `"out_specs"`.
      specs: A tree of specs.

    Raises:
      ArgumentTypeError: If something in it is neither a `PartitionSpec` nor None nor `StateSharding`.
    """
    for leaf in jax.tree.leaves(specs):
        for spec in [s for _, s in leaf.pairs] if isinstance(leaf, StateSharding) else [leaf]:
            if spec is not None and not isinstance(spec, PartitionSpec):
                raise errors.ArgumentTypeError(
                    f"`{option}` has {spec!r}, which is no spec.",
                    "A spec is a jax.sharding.PartitionSpec; of a module also StateSharding.",
                )


def find_bad_spec(
    plan: Plan, leaves: Sequence[Any], specs: Sequence[PartitionSpec], axes: Axes
) -> errors.LiftError | None:
    """Why the specs of some arguments do not fit.

    Args:
      plan: The arguments.
      leaves: The dynamic leaves.
      specs: The spec of each.
      axes: The mesh axes.

    Returns:
      The error to raise, None if the specs fit.
    """
    for slot, value, spec in zip(plan.slots, leaves, specs, strict=True):
        name = plan.typed_name(slot)
        unknown = [axis for axis in axes_of_spec(spec) if axis not in axes.sizes]
        if unknown:
            return errors.ArgumentError(
                f"{name} has the spec {spec}, but {unknown[0]!r} is no axis that shard_map splits over: "
                f"{', '.join(map(repr, axes.names)) or 'there is none'}.",
                "Correct the spec, `mesh` or `axis_names`.",
            )
        for leaf in jax.tree.leaves(value):
            problem = _misfit(np.shape(leaf), spec, axes)
            if problem:
                return errors.ArgumentError(
                    f"{name} cannot be sharded by {spec}: its shape is {np.shape(leaf)}, and {problem}.",
                    "Give it another spec in `in_specs`; StateSharding tells the Variables of a module apart.",
                )
    return None


def _misfit(shape: tuple[int, ...], spec: PartitionSpec, axes: Axes) -> str:
    """Why an array cannot be sharded; the empty string if it can."""
    if len(spec) > len(shape):
        return f"the spec has {len(spec)} entries"
    for axis, (size, entry) in enumerate(zip(shape, spec, strict=False)):
        names = axes_of_spec(PartitionSpec(entry))
        shards = int(np.prod([axes.sizes[name] for name in names]))
        if size % shards:
            return f"axis {axis} would have {shards} shards"
    return ""


def find_varying_output(
    trace: Callable[[Callable[[Result, Sequence[Prefix]], Any], Any], Any], plan: Plan, axes: Axes
) -> errors.LiftError | None:
    """Why JAX refuses what a `shard_map` returns.

    Args:
      trace: Maps the function once more; what it returns is made by the callable, with the specs that it is given, or
        it raises a ValueError.
      plan: The arguments.
      axes: The mesh axes.

    Returns:
      The error to raise, None if nothing is wrong with the specs.
    """
    parts: list[tuple[str, str, Any, list[tuple[int, ...]]]] = []

    def note(result: Result, specs: Sequence[Prefix]) -> None:
        for kind, name, spec, value in parts_of_result(plan, result, specs):
            parts.append((kind, name, spec, [np.shape(x) for x in jax.tree.leaves(value)]))

    with frames.noting_writes() as lines:
        trace(note, PartitionSpec())
    for _, name, spec, shapes in parts:
        for shape in shapes:
            if spec is not None and len(spec) > len(shape):
                return errors.ArgumentError(
                    f"{name} has the shape {shape} in each shard, which is too short for the spec {spec}.",
                    "Correct the spec in `out_specs` or, for what belongs to an argument, in `in_specs`.",
                )

    def fails(chosen: list[int]) -> bool:
        def take(result: Result, specs: Sequence[Prefix]) -> Any:
            return [result.leaves[i] for i in chosen]

        specs = [PartitionSpec() if parts[i][2] is None else parts[i][2] for i in chosen]
        try:
            trace(take, specs)
        except ValueError:
            return True
        return False

    culprit = find_culprit(list(range(len(parts))), fails)
    if culprit is None:
        return None
    kind, name, spec, _ = parts[culprit]
    error = _varies(kind, name, PartitionSpec() if spec is None else spec, axes)
    return at_line(error, lines.get(name))


def _varies(kind: str, name: str, spec: PartitionSpec, axes: Axes) -> errors.LiftError:
    """The error for something that is not replicated although its spec says so."""
    along = " or ".join(repr(axis) for axis in axes.names if axis not in axes_of_spec(spec))
    if kind == "output":
        return errors.ArgumentError(
            f"{name} has the spec {spec}, so all shards along {along} must return the same, but they differ.",
            "Name the axis in `out_specs`, or reduce the value over it (for example with `jax.lax.pmean`).",
        )
    what = "be given" if kind == "attached" else "write"
    return errors.SharedWriteError(
        f"{name} has the spec {spec}, so all shards along {along} must {what} the same, but they differ.",
        "Shard the Variable as well (`in_specs`, `StateSharding`), or reduce the value before writing it (for example "
        "with `jax.lax.pmean`).",
    )
