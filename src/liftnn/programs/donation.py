"""Donation: which buffers a program may reuse, and what is wrong when one has been used already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn.graph.kinds import CELL, FUNCTION
from liftnn.lifting.pure import PureCall
from liftnn.lifting.result import Plan


def find_kept(plan: Plan) -> set[int]:
    """The nodes whose arrays are not donated: functions and cells, which others may hold, as any code does."""
    return {number for number in plan.node_arrays if plan.graph.specs[number].kind in (FUNCTION, CELL)}


def find_written(pure: PureCall, values: Sequence[Any], arrays: Sequence[Any]) -> list[bool]:
    """For each Variable whether a call overwrites it, found by an abstract pass.

    Args:
      pure: The pure call.
      values: The values of the Variables.
      arrays: The bare arrays.

    Returns:
      True for each Variable that the call writes.
    """
    result = jax.eval_shape(pure, list(values), list(arrays))
    return [update is not None for update in result.updates]


def buffer_of(x: Any) -> Any:
    """The address of an array's buffer, which two arrays may share; of one in several parts its own id."""
    try:
        return x.unsafe_buffer_pointer()
    except Exception:  # it has several parts, or another runtime has no such thing
        return id(x)


def unshare(given: Any, kept: Any, key: Callable[[Any], Any] = id) -> Any:
    """The donated arrays, with copies of those that occur twice or are also among the others.

    XLA may reuse a buffer once. An array that two Variables hold, or that is an argument as well, would be gone for
    the other one.

    Args:
      given: The donated arrays.
      kept: The others.
      key: What tells arrays apart. The default is their identity.

    Returns:
      The donated arrays, all different.
    """
    leaves, treedef = jax.tree.flatten(given)
    seen = set(map(key, jax.tree.leaves(kept)))
    unshared = []
    for x in leaves:
        unshared.append(jnp.copy(x) if key(x) in seen else x)
        seen.add(key(x))
    return treedef.unflatten(unshared)


def deleted_error(plan: Plan, values: Sequence[Any], arrays: Sequence[Any]) -> errors.DonatedError | None:
    """The error for arguments whose buffers are gone, with their paths; None if all are there.

    Args:
      plan: The arguments.
      values: The values of the Variables.
      arrays: The bare arrays.

    Returns:
      The error, or None.
    """
    for number, value in zip(plan.variables, values, strict=True):
        if any(map(_is_deleted, jax.tree.leaves(value))):
            name = plan.graph.specs[number].type.__name__
            return errors.DonatedError(
                f"The buffer of {plan.path_of(number)} (a {name}) was donated earlier and is gone."
            )
    for place, array in enumerate(arrays):
        if _is_deleted(array):
            return errors.DonatedError(
                f"The buffer of {plan.array_name(place)} was donated earlier and is gone."
            )
    return None


def _is_deleted(x: Any) -> bool:
    if not isinstance(x, jax.Array):
        return False
    try:
        return x.is_deleted()
    except jax.errors.ConcretizationTypeError:  # a tracer; what is wrong with it, JAX says
        return False
