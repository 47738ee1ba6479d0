"""Shardings that stay: what a program writes keeps the sharding that its Variable came in with.

JAX lets the compiler choose the sharding of every output for which none is given. So the values that a step writes
would move to other devices, and the second step would be compiled again for the new shardings. The *placement* of a
call is the sharding of the value of each Variable; it is an argument without arrays of the compiled function, so
another placement is another trace, and the trace constrains what it writes. On a single device there is no placement.

The type of an array on a mesh of explicit axes has its sharding, so JAX keeps those itself.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec, Sharding

from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.trees import is_tracer
from liftnn._src.variables.storage import Storage, moves


class Placement:
    """The sharding of the value of each Variable; None for a value that has none to keep. A pytree without leaves.

    Args:
      shardings: The shardings, in the order of `Plan.variables`.
    """

    __slots__ = ("_hash", "shardings")

    def __init__(self, shardings: tuple[NamedSharding | None, ...]):
        self.shardings = shardings
        self._hash = hash(shardings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Placement) and self.shardings == other.shardings

    def __hash__(self) -> int:
        return self._hash

    def constrain(self, plan: Plan, result: Result, leaves: Sequence[Any]) -> Result:
        """Constrain the written values of a result to the shardings of the old values.

        Args:
          plan: The arguments.
          result: The result.
          leaves: The dynamic leaves that the program got; a value of another shape keeps no sharding.
        """
        kept: dict[Slot, Any] = {}
        to_constrain = {
            n: (s, x)
            for n, s, x in zip(plan.variables, self.shardings, leaves, strict=False)
            if s is not None
        }
        written = result.change.written
        for number, x in zip(written, result.leaves[len(result.leaves) - len(written) :], strict=True):
            if number not in to_constrain or not isinstance(x, jax.Array):
                continue
            sharding, old = to_constrain[number]
            if x.shape == old.shape:
                kept[Slot(number)] = jax.lax.with_sharding_constraint(x, sharding)
        return result.write(kept) if kept else result


jax.tree_util.register_static(Placement)


@functools.cache
def _on_many_devices() -> bool:
    """Return whether this process sees several devices; only then are moves between them noted."""
    moves.are_noted = jax.device_count() > 1
    return moves.are_noted


def find_placement(values: Sequence[Any]) -> tuple[Placement] | tuple[()]:
    """Return the placement of the values of Variables, as further arguments of the program: none on a single device."""
    if not _on_many_devices():
        return ()
    shardings = tuple(map(_kept_sharding, values))
    return () if shardings.count(None) == len(shardings) else (Placement(shardings),)


def _kept_sharding(x: Any) -> NamedSharding | None:
    """Return the sharding that a value keeps, None if there is none: it is on one device, or JAX keeps its sharding."""
    if not isinstance(x, (jax.Array, jax.ShapeDtypeStruct)) or is_tracer(x):
        return None
    sharding = x.sharding
    if not isinstance(sharding, NamedSharding) or sharding.mesh.size == 1:
        return None
    is_auto = all(kind == AxisType.Auto for kind in sharding.mesh.axis_types)
    return sharding if is_auto and sharding.memory_kind != "pinned_host" else None


def place(leaves: Sequence[Any], shardings: Sequence[Any]) -> list[Any]:
    """Put arrays that JAX may move where they belong, so the next call finds them there.

    Args:
      leaves: The dynamic leaves of a call, or some of them.
      shardings: The sharding of each leaf; anything else for no sharding.

    Returns:
      The leaves; an array that is committed to a device is left there, and JAX raises if that is elsewhere.
    """
    return [
        jax.device_put(x, sharding) if _may_move(x) and _divides(sharding, x) else x
        for x, sharding in zip(leaves, shardings, strict=True)
    ]


def place_beside(values: Sequence[Any]) -> Sequence[Any]:
    """Put values of no chosen device beside those on a mesh, as JAX would in each call: so one trace serves all calls.

    Args:
      values: The values of Variables.

    Returns:
      The values; one of no chosen device is replicated on the mesh of the others.
    """
    for placement in find_placement(values):
        meshes = {sharding.mesh for sharding in placement.shardings if sharding is not None}
        if len(meshes) == 1:
            return place(values, [NamedSharding(meshes.pop(), PartitionSpec())] * len(values))
    return values


def _may_move(x: Any) -> bool:
    """Return whether a leaf is an array on the default device that nobody has put there."""
    return isinstance(x, jax.Array) and not is_tracer(x) and not x.committed


def _divides(sharding: Any, x: jax.Array) -> bool:
    """Return whether an array can be put there; if not, JAX raises the error when the program is called."""
    if not isinstance(sharding, Sharding) or not sharding.is_fully_addressable:
        return False
    try:
        sharding.shard_shape(x.shape)
    except (ValueError, IndexError):  # the latter for a spec that is longer than the shape
        return False
    return True


class PlacementCheck:
    """The check of a fast path that no Variable has moved to other devices.

    Args:
      storages: The storages of the Variables.
    """

    __slots__ = ("_count", "_shardings", "_storages")

    def __init__(self, storages: Sequence[Storage]):
        self._storages = storages
        self._count = moves.count
        self._shardings = [getattr(storage.value, "sharding", None) for storage in storages]

    def holds(self) -> bool:
        """Return whether all values have the shardings that they had; a value of no chosen device is put there."""
        count = moves.count
        if count == self._count:
            return True
        for storage, sharding in zip(self._storages, self._shardings, strict=True):
            if getattr(storage.value, "sharding", None) == sharding:
                continue
            [storage.value] = place([storage.value], [sharding])
            if getattr(storage.value, "sharding", None) != sharding:
                return False
        self._count = count
        return True


def find_moves(storages: Sequence[Storage]) -> list[PlacementCheck]:
    """Return the check that no Variable has moved; none if there is nowhere to go."""
    return [PlacementCheck(storages)] if _on_many_devices() else []
