"""Donation: which buffers a program may reuse, and what is wrong when one has been used already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.graph.kinds import CELL, FUNCTION
from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.contract import Plan, PureFunction


def find_kept(plan: Plan) -> set[int]:
    """The nodes whose arrays are not donated: functions and cells, which others may hold, as any code does."""
    return {number for number, spec in enumerate(plan.graph.specs) if spec.kind in (FUNCTION, CELL)}


def find_written(plan: Plan, pure: PureFunction, leaves: Sequence[Any]) -> set[int]:
    """The Variables that a call overwrites, found by an abstract pass.

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
    """The address of an array's buffer, which two arrays may share; of one in several parts its own id."""
    try:
        return x.unsafe_buffer_pointer()
    except Exception:  # it has several parts, or another runtime has no such thing
        return id(x)


def unshare(given: Sequence[Any], donated: Sequence[int], key: Callable[[Any], Any] = id) -> list[Any]:
    """Arguments, with copies of donated arrays that occur twice or are also among the others.

    XLA may reuse a buffer once. An array that two Variables hold, or that is an argument as well, would be gone for
    the other one.

    Args:
      given: The arguments.
      donated: The positions of those that are donated.
      key: What tells arrays apart. The default is their identity.

    Returns:
      The arguments; all donated arrays are different.
    """
    unshared = list(given)
    kept = set(range(len(given))).difference(donated)
    seen = set(map(key, jax.tree.leaves([given[at] for at in kept])))

    def keep_or_copy(x: Any) -> Any:
        is_known = key(x) in seen
        seen.add(key(x))
        return jnp.copy(x) if is_known else x

    for at in donated:
        unshared[at] = jax.tree.map(keep_or_copy, given[at])
    return unshared


def deleted_error(plan: Plan, leaves: Sequence[Any]) -> errors.DonatedError | None:
    """The error for arguments whose buffers are gone, with their paths; None if all are there.

    Args:
      plan: The arguments.
      leaves: The dynamic leaves.

    Returns:
      The error, or None.
    """
    for slot, x in zip(plan.slots, leaves, strict=True):
        if any(map(_is_deleted, jax.tree.leaves(x))):
            return errors.DonatedError(
                f"The buffer of {plan.typed_name(slot)} was donated earlier and is gone."
            )
    return None


def _is_deleted(x: Any) -> bool:
    if not isinstance(x, jax.Array):
        return False
    try:
        return x.is_deleted()
    except jax.errors.ConcretizationTypeError:  # a tracer; what is wrong with it, JAX says
        return False
