"""One call: its flattened arguments and bound function, and how its result is written to objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from liftnn._src.captures.guards import NO_GUARDS, Guards
from liftnn._src.graph.merge import commit, merge_all
from liftnn._src.lifting.arguments import StaticArgument
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.lifting.values import decode
from liftnn._src.modules.module import Module
from liftnn._src.trees import is_truncated_dtype
from liftnn._src.variables import frames
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.write_errors import write_error


class Call(NamedTuple):
    """The flattened arguments of one call, and the bound function to call with them.

    Args:
      bound: The result of `bind`.
      plan: The structure of the arguments.
      objects: The live objects by number.
      leaves: The dynamic leaves, in the order of `Plan.slots`.
      static: The static arguments by position (None for a dynamic one) and by name.
      guards: While they hold, the next call captures the same modules.
      uncopied: The arguments that the function gets as they are; see `Uncopied`.
    """

    bound: Any
    plan: Plan
    objects: list[Any]
    leaves: list[Any]
    static: tuple[list[StaticArgument | None], dict[str, Any]]
    guards: Guards = NO_GUARDS
    uncopied: Sequence[Any] = ()


def check_writable(call: Call, result: Result) -> None:
    """Raise if a result would change an object of another trace."""
    for number in result.written:
        x = call.objects[number]
        if isinstance(x, (Variable, Module)) and not frames.may_write(x._owner):
            raise write_error(x, "the state", call.plan.path_of(number))


def commit_result(
    call: Call, result: Result, objects: list[Any], finish: Callable[[Any], Any] | None = None
) -> Any:
    """Write the result of a call to objects.

    Args:
      call: The call.
      result: Its result.
      objects: The objects to change, by number; new ones are appended.
      finish: Maps the output of the call to the caller's output. If it raises, the objects are restored.

    Returns:
      The caller's output.
    """
    leaves = _keep_numpy(call, result, list(map(decode, result.leaves)))
    return commit(result.change, objects, leaves, frames.owner_now(), finish)


def _keep_numpy(call: Call, result: Result, leaves: list[Any]) -> list[Any]:
    """Return the leaves of a result with those numpy arrays that were only donated, and that JAX would truncate.

    JAX copies a numpy array to the device, so its own buffer is not donated, and cannot hold all of 64 bits.
    """
    only_donated = set(result.change.donated)
    if only_donated and has_truncated(call.leaves):
        old = call.plan.by_slot(call.leaves)
        for i, slot in enumerate(result.slots):
            if slot.node in only_donated and has_truncated(old.get(slot)):
                kept = jax.tree.leaves(decode(old[slot]))
                new, treedef = jax.tree.flatten(leaves[i])
                pairs = zip(kept, new, strict=True)
                leaves[i] = treedef.unflatten([x if is_truncated(x) else y for x, y in pairs])
    return leaves


def has_truncated(tree: Any) -> bool:
    """Return whether a pytree holds a numpy array with a dtype that JAX truncates."""
    return any(map(is_truncated, jax.tree.leaves(tree)))


def is_truncated(x: Any) -> bool:
    """Return whether an argument is a numpy array with a dtype that JAX truncates, such as int64 without x64."""
    return isinstance(x, np.ndarray) and is_truncated_dtype(x.dtype)


def commit_to_copies(call: Call, result: Result, finish: Callable[[Any], Any] | None = None) -> Any:
    """Return the output of an abstract result; objects of the arguments in it are abstract copies."""
    leaves = jax.eval_shape(lambda leaves: jax.tree.map(_as_array, leaves), call.leaves)
    _, merged = merge_all(call.plan.graph, list(map(decode, leaves)), frames.owner_now())
    return commit_result(call, result, merged.objects, finish)


def _as_array(x: Any) -> Any:
    """Return the value of a mutable array, which JAX does not return; any other leaf as it is."""
    return x[...] if isinstance(x, jax.Ref) else x
