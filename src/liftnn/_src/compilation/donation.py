"""Donation of buffers: find the buffers that a program may reuse, copy shared ones, and report deleted ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.graph.kinds import CELL, FUNCTION
from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.contract import Plan, PureFunction
from liftnn._src.trees import is_deleted


def find_kept(plan: Plan) -> set[int]:
    """Return the nodes with arrays that are never donated: functions and cells, which other code may hold."""
    return {number for number, spec in enumerate(plan.graph.specs) if spec.kind in (FUNCTION, CELL)}


def find_written(plan: Plan, pure: PureFunction, leaves: Sequence[Any]) -> set[int]:
    """Find the Variables that a call overwrites, by an abstract trace.

    Args:
      plan: The arguments.
      pure: The pure function.
      leaves: The dynamic leaves.

    Returns:
      The positions of their values among the leaves.
    """
    result = jax.eval_shape(pure, list(leaves))
    return {plan.index[Slot(number)] for number in result.change.written}


def buffer_of(x: Any) -> Any:
    """Return the address of an array's buffer, which two arrays may share; the id of a sharded array."""
    try:
        return x.unsafe_buffer_pointer()
    except Exception:  # the array is sharded, or the runtime does not support it
        return id(x)


def unshare(arguments: Sequence[Any], donated: Sequence[int], key: Callable[[Any], Any] = id) -> list[Any]:
    """Copy donated arrays that occur twice, or also occur in an argument that is not donated.

    XLA can reuse a buffer only once. If two Variables hold the same array, or it is also another argument, donating it
    would delete it for both.

    Args:
      arguments: The arguments of a compiled function.
      donated: The positions of the donated arguments.
      key: Two arrays with equal keys are the same. The default is their identity.

    Returns:
      The arguments, with distinct donated arrays.
    """
    unshared = list(arguments)
    kept = set(range(len(arguments))).difference(donated)
    seen = set(map(key, jax.tree.leaves([arguments[at] for at in kept])))

    def keep_or_copy(x: Any) -> Any:
        is_known = key(x) in seen
        seen.add(key(x))
        return jnp.copy(x) if is_known else x

    for at in donated:
        unshared[at] = jax.tree.map(keep_or_copy, arguments[at])
    return unshared


def deleted_error(plan: Plan, leaves: Sequence[Any]) -> errors.DonatedError | None:
    """Return the error for an argument with a deleted buffer; None if there is none.

    Args:
      plan: The arguments.
      leaves: The dynamic leaves.

    Returns:
      The error, which names the path of the argument, or None.
    """
    for slot, x in zip(plan.slots, leaves, strict=True):
        if any(map(is_deleted, jax.tree.leaves(x))):
            name = plan.typed_name(slot)
            if _looks_for_nans():
                return errors.DonatedError(
                    f"The buffer of {name} is gone. Either it was donated earlier, or this call computed a NaN or an "
                    "infinity: JAX then runs the function again to locate it, but the buffer had been donated.",
                    "Set jax_debug_nans or jax_debug_infs before the function is first called, so that JAX does not "
                    "donate its arguments.",
                )
            return errors.DonatedError(f"The buffer of {name} was donated earlier and is gone.")
    return None


def _looks_for_nans() -> bool:
    """Return whether JAX runs a function again if it has computed a NaN or an infinity."""
    config: Any = jax.config  # JAX adds its options at run time
    return bool(config.jax_debug_nans or config.jax_debug_infs)
