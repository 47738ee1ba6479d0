"""Place arrays on a mesh: the value of a Variable that is created with a declared sharding, and any other array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from liftnn import errors
from liftnn._src.tracebacks import warn
from liftnn._src.trees import is_tracer
from liftnn._src.variables.axis_rules import current_rules
from liftnn._src.variables.creation_path import path_of_creation
from liftnn._src.variables.declared import (
    Declared,
    axes_of,
    declared_of,
    describe,
    find_indivisible,
    find_problem,
    misfit,
    named,
)
from liftnn._src.variables.eager_sharding import using_eager_sharding
from liftnn._src.variables.metadata import SHARDING_NAMES


def current_mesh() -> Any:
    """Return the mesh of `jax.set_mesh`, or of the trace that runs; None without a mesh."""
    abstract = jax.sharding.get_abstract_mesh()
    if abstract.empty:
        return None
    if is_tracing():
        return abstract
    mesh = jax.sharding.get_mesh()
    return abstract if mesh.empty else mesh


def is_tracing() -> bool:
    """Return whether a transform of JAX is tracing; a mesh is then known without its devices."""
    try:
        jax.sharding.get_mesh()
    except ValueError:
        return True
    return False


def place_new(variable: Any, value: Any, metadata: Mapping[str, Any]) -> Any:
    """Return the value of a new Variable where its metadata declare it; unchanged without a mesh or a declaration.

    Args:
      variable: The Variable.
      value: Its value.
      metadata: The metadata that were set.

    Returns:
      The value with its arrays on the mesh.

    Raises:
      ShardingError: If the declared sharding does not fit the mesh or the array, or an array is committed elsewhere.

    Warns:
      ShardingWarning: If an axis cannot be divided as declared, in a trace on automatic axes; it is left whole.
    """
    if not metadata or metadata.keys().isdisjoint(SHARDING_NAMES):
        return value
    if metadata.get("eager_sharding") is False or not using_eager_sharding():
        return value
    declared = declared_of(metadata, current_rules())
    mesh = None if declared is None else declared.mesh if declared.mesh is not None else current_mesh()
    if declared is None or mesh is None:
        return value

    def place_leaf(x: Any) -> Any:
        if not isinstance(x, (jax.Array, np.ndarray)):
            return x
        used, problem = declared, find_problem(declared, x.shape, mesh) or find_commitment(x, mesh)
        if problem:
            line = describe(named(path_of_creation(), variable, x.shape), declared, problem)
            whole = find_indivisible(declared, x.shape, mesh)
            used = declared.without(whole)
            if mesh.explicit_axes or not is_tracing() or find_problem(used, x.shape, mesh):
                raise misfit(mesh, [line])
            warn(
                f"A declared sharding does not fit the array, which is left unsharded along that axis.\n  {line}",
                errors.ShardingWarning,
            )
        return place(x, mesh, used)

    return jax.tree.map(place_leaf, value)


def find_commitment(x: Any, mesh: Any) -> str:
    """Return why an array cannot be moved to a mesh: it is committed to other devices. Otherwise an empty string."""
    if is_tracer(x) or not isinstance(x, jax.Array) or not isinstance(mesh, jax.sharding.Mesh):
        return ""
    if not x.committed or x.sharding.device_set == set(mesh.devices.flat):
        return ""
    return f"its array is committed to other devices, by {x.sharding}; move it first, with `jax.device_put`"


def place(x: Any, mesh: Any, declared: Declared) -> Any:
    """Return an array with a sharding on a mesh; inside a transform it is a constraint.

    Axes of the mesh over which a `shard_map` runs are left out: each shard has its own array.

    Args:
      x: The array.
      mesh: The mesh, which may be abstract.
      declared: The sharding, which fits.

    Returns:
      The array.
    """
    if is_tracer(x) or is_tracing() or not isinstance(mesh, jax.sharding.Mesh):
        return constrain(x, mesh, declared.entries)
    spec = declared.spec
    if PartitionSpec.UNCONSTRAINED in declared.entries:
        return constrain(x, mesh, declared.entries)
    return jax.device_put(x, NamedSharding(mesh, spec) if declared.format is None else declared.format)


def constrain(x: Any, mesh: Any, entries: tuple[Any, ...]) -> Any:
    """Return an array with a sharding over the automatic and explicit axes of a mesh."""
    current = jax.sharding.get_abstract_mesh()
    manual = set(current.manual_axes)
    if manual:  # inside shard_map, the mesh is the one of the trace
        mesh = current
    explicit, auto = set(mesh.explicit_axes) - manual, set(mesh.auto_axes) - manual
    if explicit:
        x = jax.sharding.reshard(x, NamedSharding(mesh, _only(entries, explicit)))
    if auto and (not explicit or any(set(axes_of(entry)) & auto for entry in entries)):
        x = _constrain_auto(x, mesh, _only(entries, auto))
    return x


def _constrain_auto(x: Any, mesh: Any, spec: PartitionSpec) -> Any:
    """Return an array with a sharding over the automatic axes of a mesh."""
    try:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
    except (
        TypeError
    ):  # outside of jit, in `grad`: an array that is not on the mesh; JAX wants the mesh's devices
        sharding = jnp.zeros(()).sharding
        if not isinstance(sharding, NamedSharding):
            raise
        return jax.lax.with_sharding_constraint(x, NamedSharding(sharding.mesh, spec))


def _only(entries: tuple[Any, ...], axes: set[Any]) -> PartitionSpec:
    """Return a spec with some of the mesh axes only."""
    kept: list[Any] = []
    for entry in entries:
        if entry is PartitionSpec.UNCONSTRAINED:
            kept.append(entry)
            continue
        names = tuple([name for name in axes_of(entry) if name in axes])
        kept.append(names if len(names) > 1 else names[0] if names else None)
    return PartitionSpec(*kept)
