"""Shardings of results on meshes with explicit axes, where JAX asks for them.

The type of an array on such a mesh has a sharding, and JAX derives the sharding of a result from those of the operands.
Where that is ambiguous, it raises. Layers then choose what the compiler would on a mesh of automatic axes: the result
keeps the axes of its operands, those of the input first, and what is summed over is reduced over the mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from liftnn._src.trees import is_tracer

Entries = tuple[Any, ...]


def entries_of(x: Any) -> Entries | None:
    """Return the explicit mesh axes of each axis of an array: one, a tuple or None; None if the mesh has none.

    None, too, for an operand that is not a JAX array, such as a quantized weight of another library.
    """
    sharding = getattr(jax.typeof(x), "sharding", None) if isinstance(x, jax.Array) else None
    if sharding is None or not sharding.mesh.explicit_axes:
        return None
    return (*sharding.spec, *(None,) * (x.ndim - len(sharding.spec)))


def mesh_of(*arrays: Any) -> Any:
    """Return the mesh with explicit axes on which one of some arrays is; None if there is none.

    The mesh of an array that has a value has devices. Outside of `jax.set_mesh` JAX needs them to place another array.
    """
    found = [x for x in arrays if entries_of(x) is not None]
    if not found:
        return None
    concrete = [x for x in found if not is_tracer(x)]
    return concrete[0].sharding.mesh if concrete else jax.typeof(found[0]).sharding.mesh


def distinct(entries: Sequence[Any]) -> Entries:
    """Return the entries of a spec without the mesh axes that an entry before has."""
    seen: set[Any] = set()
    kept: list[Any] = []
    for entry in entries:
        names = [
            n for n in (entry if isinstance(entry, tuple) else (entry,)) if n is not None and n not in seen
        ]
        seen.update(names)
        kept.append(tuple(names) if len(names) > 1 else names[0] if names else None)
    return tuple(kept)


def product_sharding(lhs: jax.Array, rhs: jax.Array, dimensions: Any) -> NamedSharding | None:
    """Return the sharding of a product where JAX does not derive it.

    Args:
      lhs: The first operand.
      rhs: The second operand.
      dimensions: The contracted and the batch axes, as for `jax.lax.dot_general`.

    Returns:
      The sharding; None if the mesh has no explicit axes, or JAX derives it.
    """
    (lhs_contracted, rhs_contracted), (lhs_batch, rhs_batch) = dimensions
    return sharding_of_result(
        lhs,
        rhs,
        [(i, j) for i, j in zip(lhs_batch, rhs_batch, strict=True)]
        + [(i, None) for i in range(lhs.ndim) if i not in (*lhs_contracted, *lhs_batch)]
        + [(None, j) for j in range(rhs.ndim) if j not in (*rhs_contracted, *rhs_batch)],
    )


def sharding_of_result(
    lhs: jax.Array, rhs: jax.Array, axes: Sequence[tuple[int | None, int | None]]
) -> NamedSharding | None:
    """Return the sharding of a function of two arrays where JAX does not derive it.

    Args:
      lhs: The first array.
      rhs: The second array.
      axes: For each axis of the result, the axis of each array that it comes from.

    Returns:
      The sharding; None if the mesh has no explicit axes, or if no axis that is left out is sharded and no mesh axis
      would be used twice.
    """
    mesh = mesh_of(lhs, rhs)
    if mesh is None:
        return None
    first, second = (entries_of(x) or (None,) * x.ndim for x in (lhs, rhs))
    found = [(None if i is None else first[i]) or (None if j is None else second[j]) for i, j in axes]
    used = ({i for i, _ in axes}, {j for _, j in axes})
    left_out = [
        entry
        for entries, kept in ((first, used[0]), (second, used[1]))
        for axis, entry in enumerate(entries)
        if axis not in kept
    ]
    entries = distinct(found)
    if entries == tuple(found) and not any(left_out):
        return None
    return NamedSharding(mesh, PartitionSpec(*entries))


def sharded_like_batch(x: Any, other: jax.Array, axes: Sequence[tuple[int, int]]) -> Any:
    """Return an array with the sharding of another one along their batch axes, which JAX 0.11 and newer ask for.

    Args:
      x: The array.
      other: The other one.
      axes: Each batch axis of `x`, and the same axis of `other`.

    Returns:
      The array; unchanged if the mesh has no explicit axes or the batch axes agree.
    """
    before, wanted = entries_of(x), entries_of(other)
    if not axes or (before is None and wanted is None):
        return x
    entries = list(before or (None,) * x.ndim)
    for axis, of_other in axes:
        entries[axis] = wanted[of_other] if wanted else None
    batch = [axis for axis, _ in axes]
    order = [*batch, *(axis for axis in range(x.ndim) if axis not in batch)]
    kept = dict(zip(order, distinct([entries[axis] for axis in order]), strict=True))
    return reshard_like(x, tuple(kept[axis] for axis in range(x.ndim)), mesh_of(other, x))


def convolution_sharding(inputs: jax.Array, kernel: jax.Array, features: int) -> NamedSharding | None:
    """Return the sharding of a convolution where JAX does not derive it: over its batch and its features.

    Args:
      inputs: Array of shape `(batch, *space, in_features)`.
      kernel: The kernel.
      features: The axis of the kernel with the features of the result.

    Returns:
      The sharding; None if the mesh has no explicit axes, or only the batch is sharded.
    """
    axes: list[tuple[int | None, int | None]] = [
        (0, None),
        *[(None, None)] * (inputs.ndim - 2),
        (None, features),
    ]
    found = sharding_of_result(inputs, kernel, axes)
    if found is None and any(entries_of(kernel) or ()):
        entries = (entries_of(inputs) or (None,))[0], (entries_of(kernel) or (None,) * kernel.ndim)[features]
        spec = PartitionSpec(entries[0], *[None] * (inputs.ndim - 2), entries[1])
        return NamedSharding(mesh_of(inputs, kernel), spec)
    return found


def automatic(f: Callable[..., Any], out: Any, *arrays: Any) -> Any:
    """Call a function with the explicit axes of the mesh made automatic.

    Args:
      f: The function.
      out: The entries of the spec of each result: a tuple of them, or of tuples of them as the results.
      *arrays: The arguments.

    Returns:
      What the function returns; without explicit axes, simply that.
    """
    mesh = mesh_of(*arrays)
    if mesh is None:
        return f(*arrays)
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), out)
    return jax.sharding.auto_axes(f, out_sharding=shardings)(*arrays)


def whole_along(x: Any, axes: Sequence[int]) -> Any:
    """Return an array that is not sharded along some axes, on a mesh with explicit axes; otherwise unchanged."""
    entries = entries_of(x)
    whole = entries and tuple([None if axis in axes else entry for axis, entry in enumerate(entries)])
    return reshard_like(x, whole, mesh_of(x))


def replicate_on_mesh_of(x: jax.Array, key: jax.Array) -> jax.Array:
    """Return a key on the mesh with explicit axes on which an array is; unchanged without one, or in a trace.

    JAX draws random numbers with a sharding only where the key is, unless `jax.set_mesh` names the mesh.
    """
    mesh = None if is_tracer(x) or is_tracer(key) else mesh_of(x)
    return key if mesh is None else jax.device_put(key, NamedSharding(mesh, PartitionSpec()))


def place_like(x: jax.Array, abstract: Any, mesh: Any) -> jax.Array:
    """Return an array with the sharding of an abstract array, on a mesh with explicit axes."""
    sharding = getattr(abstract, "sharding", None)
    if sharding is None or not sharding.mesh.explicit_axes or len(sharding.spec) > x.ndim:
        return x
    entries = (*sharding.spec, *(None,) * (x.ndim - len(sharding.spec)))
    return reshard_like(x, entries, mesh)


def in_place_of(old: Any, new: jax.Array) -> jax.Array:
    """Return an array with the sharding of the value that it replaces, on a mesh with explicit axes.

    There the sharding is part of the type: a step whose statistics change it is traced again, and a loop raises.
    """
    return reshard_like(new, entries_of(old), mesh_of(old))


def reshard_like(x: jax.Array, entries: Entries | None, mesh: Any) -> jax.Array:
    """Return an array with the sharding of these entries; unchanged without explicit axes or with this sharding."""
    if entries is None or entries_of(x) == entries:
        return x
    return jax.sharding.reshard(x, NamedSharding(mesh, PartitionSpec(*entries)))
