"""What an array takes over from the array of a module that it replaces: sharding and weak type."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


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
    return jnp.broadcast_to(scalar, x.shape).at[...].set(x)
