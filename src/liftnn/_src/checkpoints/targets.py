"""What an array takes over from the array of a module that it replaces: kind, byte order, sharding and weak type."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from liftnn._src.checkpoints.entries import JAX, NUMPY, SCALAR, ArrayEntry, CheckpointEntry
from liftnn._src.checkpoints.stored import native
from liftnn._src.trees import is_array, is_tracer, is_truncated_dtype


def target_sharding(target: Any) -> Any:
    """Return the sharding of the array to restore; None if it is not committed to devices, as new arrays are not."""
    if isinstance(target, jax.Array):
        return target.sharding if target.committed else None
    sharding = getattr(target, "sharding", None)
    if not isinstance(sharding, jax.sharding.NamedSharding):
        return sharding
    if isinstance(sharding.mesh, jax.sharding.AbstractMesh):
        mesh = jax.sharding.get_mesh()
        return None if mesh.empty else jax.sharding.NamedSharding(mesh, sharding.spec)
    return sharding


def with_weak_type(x: jax.Array) -> jax.Array:
    """Return an array of weak type, like results of Python numbers; unchanged if JAX has no weak type of its dtype."""
    scalar = jnp.asarray(x.dtype.type(0).item())
    if scalar.dtype != x.dtype:
        return x
    weak = jnp.broadcast_to(scalar, x.shape)
    sharding = jax.typeof(x).sharding if is_tracer(x) else x.sharding
    if not _is_explicit(sharding):
        return weak.at[...].set(x)
    weak = jax.device_put(weak, sharding).at[...].set(x)
    return jax.device_put(weak, sharding)  # JAX has written out its axes that are not sharded


def _is_explicit(sharding: Any) -> bool:
    """Return whether shardings are part of the types of arrays on the mesh."""
    if not isinstance(sharding, jax.sharding.NamedSharding):
        return False
    return jax.sharding.AxisType.Explicit in sharding.mesh.axis_types


def target_kind(entry: ArrayEntry, target: Any) -> str:
    """Return the kind of the array to restore: that of the array that it replaces, else the one that was saved."""
    if entry.impl is not None:
        return JAX
    if isinstance(target, np.ndarray):
        return NUMPY
    if isinstance(target, np.generic):
        return SCALAR
    if is_array(target):
        return JAX
    return NUMPY if entry.kind == JAX and _is_too_wide(entry) else entry.kind


def target_dtype(entry: ArrayEntry, target: Any) -> np.dtype[Any]:
    """Return the dtype of the array to restore, other than keys: with the byte order of the array that it replaces."""
    if target_kind(entry, target) == JAX:
        return native(entry.numpy_dtype)
    return target.dtype if isinstance(target, np.ndarray) else entry.numpy_dtype


def is_too_wide(entry: CheckpointEntry, target: Any) -> bool:
    """Return whether a jax.Array of 64 bits is to be restored while JAX has none: `jax_enable_x64` is off."""
    return isinstance(entry, ArrayEntry) and target_kind(entry, target) == JAX and _is_too_wide(entry)


def _is_too_wide(entry: ArrayEntry) -> bool:
    """Return whether JAX does not have the dtype of an entry now."""
    return entry.impl is None and is_truncated_dtype(entry.numpy_dtype)
