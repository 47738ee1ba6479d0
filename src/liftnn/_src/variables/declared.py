"""The sharding that metadata declare: names, the spec that rules make of them, and what does not fit a mesh."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec

from liftnn import errors
from liftnn._src.trees import an, list_paths
from liftnn._src.variables.axis_rules import mesh_text, normalize_rules
from liftnn._src.variables.metadata import SHARDING_NAMES


class Declared(NamedTuple):
    """A declared sharding, under rules.

    Args:
      names: What is declared for each axis of the array: a name, a tuple of names, or None.
      entries: The mesh axes of each axis of the array: one, a tuple, or None.
      mesh: The mesh that is declared with them, or None.
      format: The `Format` that is declared, which also has a layout, or None.
    """

    names: tuple[Any, ...]
    entries: tuple[Any, ...]
    mesh: Any = None
    format: Any = None

    @property
    def spec(self) -> PartitionSpec:
        """The spec."""
        return PartitionSpec(*self.entries)

    def without(self, axes: Container[int]) -> Declared:
        """Return the sharding that leaves some axes of the array whole."""
        return self._replace(entries=tuple([None if i in axes else x for i, x in enumerate(self.entries)]))


def declared_of(metadata: Mapping[str, Any], rules: Mapping[str, Any]) -> Declared | None:
    """Return the sharding that metadata declare; None if they declare none.

    Args:
      metadata: The metadata that were set.
      rules: Normalized rules. The metadata may add rules of their own.

    Returns:
      The declared sharding.

    Raises:
      ArgumentError: If the metadata have another rule for a name.
    """
    declared = next((metadata[name] for name in SHARDING_NAMES if metadata.get(name) is not None), None)
    if declared is None:
        return None
    added_rules = metadata.get("sharding_rules")
    return declare(declared, joined_rules(rules, added_rules) if added_rules else rules, metadata.get("mesh"))


def declare(declared: Any, rules: Mapping[str, Any], mesh: Any = None) -> Declared:
    """Return a declared sharding under rules.

    Args:
      declared: Names, a spec, a sharding with a spec, or a `Format` with such a sharding.
      rules: Normalized rules.
      mesh: The mesh. The default, None, means that of the sharding, if it has one.

    Returns:
      The declared sharding.
    """
    whole = declared if hasattr(declared, "layout") else None
    sharding = declared if whole is None else declared.sharding
    spec = getattr(sharding, "spec", sharding)
    names = (spec,) if isinstance(spec, str) else tuple(getattr(spec, "partitions", None) or spec)
    entries = tuple([_mesh_axes(name, rules) for name in names])
    return Declared(names, entries, getattr(sharding, "mesh", None) if mesh is None else mesh, whole)


def joined_rules(rules: Mapping[str, Any], added_rules: Any) -> dict[str, Any]:
    """Return the rules for a Variable that adds rules of its own."""
    added = normalize_rules(added_rules)
    for name in rules.keys() & added.keys():
        if rules[name] != added[name]:
            raise errors.ArgumentError(
                f"The rules map the axis {name!r} to {rules[name]!r}, and the metadata `sharding_rules` of a Variable "
                f"to {added[name]!r}.",
                "Use the same rule in both, or another name in one of them.",
            )
    return {**rules, **added}


def _mesh_axes(name: Any, rules: Mapping[str, Any]) -> Any:
    """Return the mesh axes for an entry of a declared sharding."""
    if isinstance(name, tuple):
        mapped = [_mesh_axes(n, rules) for n in name]
        flat = [n for m in mapped for n in axes_of(m)]
        return tuple(flat) or None
    axes = rules.get(name, name) if isinstance(name, str) else name
    return tuple(axes) if isinstance(axes, list) else axes


def axes_of(entry: Any) -> tuple[Any, ...]:
    """Return the mesh axes in an entry of a spec."""
    return entry if isinstance(entry, tuple) else () if entry is None else (entry,)


def find_problem(declared: Declared, shape: Sequence[int], mesh: Any) -> str:
    """Return why an array cannot be sharded as declared; an empty string if it can.

    Args:
      declared: The declared sharding.
      shape: The shape of the array.
      mesh: The mesh.

    Returns:
      A clause without a period.
    """
    sizes, entries = mesh.shape, declared.entries
    placed: dict[Any, int] = {}
    for axis, (name, entry) in enumerate(zip(declared.names, entries, strict=True)):
        for mesh_axis in axes_of(entry):
            if mesh_axis is PartitionSpec.UNCONSTRAINED:
                continue
            if mesh_axis not in sizes:
                return _unknown(name, mesh_axis)
            if mesh_axis in placed:
                one = placed[mesh_axis]
                both = f"axes {one} and {axis}" if one != axis else f"axis {axis} twice"
                return f"the mesh axis {mesh_axis!r} shards {both}"
            placed[mesh_axis] = axis
    if len(entries) > len(shape):
        count = _count(len(entries), "entry", "entries")
        return f"it has {count}, and the array has {_count(len(shape), 'axis', 'axes')}"
    return next(iter(find_indivisible(declared, shape, mesh).values()), "")


def find_indivisible(declared: Declared, shape: Sequence[int], mesh: Any) -> dict[int, str]:
    """Return the axes of an array that cannot be divided as declared.

    Args:
      declared: The declared sharding, over axes of the mesh.
      shape: The shape of the array.
      mesh: The mesh.

    Returns:
      The axes, each with the reason, a clause without a period.
    """
    manual = jax.sharding.get_abstract_mesh().manual_axes  # in shard_map the array is one shard along these
    found: dict[int, str] = {}
    for axis, (size, entry) in enumerate(zip(shape, declared.entries, strict=False)):
        names = [
            name for name in axes_of(entry) if name is not PartitionSpec.UNCONSTRAINED and name not in manual
        ]
        shards = math.prod(mesh.shape.get(name, 1) for name in names)
        if size % shards:
            over = " and ".join(map(repr, names))
            found[axis] = (
                f"axis {axis} of size {size} cannot be divided into {shards} equal shards over {over}"
            )
    return found


def _unknown(name: Any, mesh_axis: Any) -> str:
    """Return the problem of a mesh axis that the mesh does not have."""
    if mesh_axis in axes_of(name):
        return f"{mesh_axis!r} is not an axis of the mesh, and no rule maps it to one"
    return f"the rules map {name!r} to {mesh_axis!r}, which is not an axis of the mesh"


def _count(number: int, one: str, many: str) -> str:
    """Format a number of things."""
    return f"{number or 'no'} {one if number == 1 else many}"


def describe(name: str, declared: Declared, problem: str) -> str:
    """Return a line about a Variable, or another array, with a sharding that does not fit.

    Args:
      name: Its path, type and shape.
      declared: The declared sharding.
      problem: What `find_problem` returned.

    Returns:
      The line.
    """
    spec = f" -> {declared.spec}" if declared.names != declared.entries else ""
    return f"{name}, {declared.names}{spec}: {problem}"


def named(path: str, x: Any, shape: Sequence[int]) -> str:
    """Return the path, type and shape of a Variable for a message; the path may be empty."""
    what = f"{an(type(x))} of shape {tuple(shape)}"
    return f"{path} ({what})" if path else what


def misfit(mesh: Any, lines: Iterable[str]) -> errors.ShardingError:
    """Return the error for shardings that do not fit a mesh.

    Args:
      mesh: The mesh.
      lines: What `describe` returned for each of them.

    Returns:
      The error.
    """
    lines = list(lines)
    what = "A sharding does" if len(lines) == 1 else f"{len(lines)} shardings do"
    return errors.ShardingError(f"{what} not fit the mesh ({mesh_text(mesh)}):\n{list_paths(lines)}")
