"""Errors of mapped axes that name the attribute path, where JAX only knows positions in flat lists."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from liftnn import errors
from liftnn._src.graph.kinds import is_object
from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.after import names_after
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.prefixes.prefix import Prefix, StateAxes
from liftnn._src.tracebacks import at_line
from liftnn._src.trees import an, is_jax_array, list_paths
from liftnn._src.variables import frames


class MappedLeaf(NamedTuple):
    """One leaf of a mapped function's result: an array, or the value of a Variable.

    Args:
      kind: `"output"`, `"update"` of a Variable, or `"attached"` to an argument.
      name: The attribute path as text.
      prefix: The axis or spec.
      shapes: The shapes of the arrays in it.
    """

    kind: str
    name: str
    prefix: Prefix
    shapes: list[tuple[int, ...]]


TraceAgain = Callable[[Callable[[Result, Sequence[Prefix]], list[Any]], Sequence[Prefix]], None]
"""Traces a mapped function with another output: the list that a callable returns for its result and the prefixes.

The second argument has the prefix of each element of that list. A ValueError is raised if one of them does not fit.
"""


def check_axes(option: str, axes: Any) -> None:
    """Raise ArgumentTypeError if a tree of axes contains another object.

    Args:
      option: The name of the option, `"in_axes"` or `"out_axes"`.
      axes: A tree of axes.

    Raises:
      ArgumentTypeError: If a leaf is neither an int nor None nor `StateAxes`.
    """
    for leaf in jax.tree.leaves(axes, is_leaf=lambda x: x is None or is_object(x)):
        for axis in [a for _, a in leaf.pairs] if isinstance(leaf, StateAxes) else [leaf]:
            if axis is not None and type(axis) is not int:
                what = an(type(axis)) if is_object(axis) else repr(axis)
                raise errors.ArgumentTypeError(
                    f"`{option}` contains {what}, which is not an axis.",
                    "An axis is an int or None (not mapped), for a module also liftnn.StateAxes, and in a scan also "
                    "liftnn.Carry.",
                )


def check_in_axes(in_axes: Any) -> None:
    """Raise ArgumentTypeError if `in_axes` is neither an axis nor a tuple or list of trees of axes.

    Args:
      in_axes: The axes of the positional arguments.

    Raises:
      ArgumentTypeError: If it has another type, or if a leaf is neither an int nor None nor `StateAxes`.
    """
    check_axes("in_axes", in_axes)
    if in_axes is not None and not isinstance(in_axes, (int, tuple, list, StateAxes)):
        raise errors.ArgumentTypeError(
            f"`in_axes` is {in_axes!r}, which is neither an axis nor a tuple with an entry for each argument.",
            "Put the axes of the parts of an argument into a tuple, such as `in_axes=({'x': 0},)`.",
        )


def find_bad_input(
    plan: Plan,
    leaves: Sequence[Any],
    axes: Sequence[Prefix],
    size: int | None,
    transform: str = "vmap",
    remedy: str | None = None,
) -> errors.LiftError | None:
    """Find an argument of a `vmap`, `scan` or `map` that does not have its axis, or a size that differs.

    Args:
      plan: The arguments.
      leaves: The dynamic leaves.
      axes: The axis of each leaf.
      size: The axis size that the user passed, or None.
      transform: The name of the transform, for messages. The default is `"vmap"`.
      remedy: The remedy of the error. The default, None, is a remedy about `in_axes`.

    Returns:
      The error to raise, or None if the axes are valid.
    """
    if isinstance(size, jax.Array):  # a tracer; JAX raises the error
        return None
    done, option, each = _WORDS.get(transform, _WORDS["vmap"])
    sizes: dict[int, Callable[[], str]] = {} if size is None else {size: lambda: option}
    for i, (x, axis) in enumerate(zip(leaves, axes, strict=True)):
        if axis is None:
            continue
        for shape in [x.shape] if is_jax_array(x) else map(np.shape, jax.tree.leaves(x)):
            if not -len(shape) <= axis < len(shape):
                return errors.ArgumentError(
                    f"{plan.typed_name(plan.slots[i])} cannot be {done} over axis {axis}: its shape is {shape}.",
                    remedy
                    or f"Use another axis for it in `in_axes`, or None to share it between the {each}.",
                )
            if shape[axis] not in sizes:
                sizes[shape[axis]] = lambda i=i, axis=axis: f"axis {axis} of {plan.typed_name(plan.slots[i])}"
    if len(sizes) > 1:
        found = list_paths(f"{n}: {where()}" for n, where in sizes.items())
        return errors.ArgumentError(
            f"The arguments of {transform} have different sizes along their {done} axes:\n{found}",
            remedy
            or f"Pass arrays of the same size, or use None in `in_axes` for those that all {each} share.",
        )
    return None


def find_mixed_shardings(
    plan: Plan, leaves: Sequence[Any], axes: Sequence[Prefix]
) -> errors.LiftError | None:
    """Find arguments of a `vmap` whose mapped axes are sharded over different explicit axes of the mesh.

    Args:
      plan: The arguments.
      leaves: The dynamic leaves.
      axes: The axis of each leaf.

    Returns:
      The error to raise, or None if all are sharded the same.
    """
    found: dict[Any, list[str]] = {}
    for i, (x, axis) in enumerate(zip(leaves, axes, strict=True)):
        if isinstance(axis, int):
            for array in jax.tree.leaves(x):
                spec = jax.typeof(array).sharding.spec
                found.setdefault(spec[axis] if spec else None, []).append(plan.typed_name(plan.slots[i]))
    if len(found) < 2:
        return None
    lines = [f"{name}: sharded over {over!r}" for over, names in found.items() for name in names]
    return errors.ShardingError(
        f"The mapped axes of a vmap must all be sharded over the same axis of the mesh:\n{list_paths(lines)}",
        "Declare the axis for all of them (with `transform_metadata`, a Variable needs a declared sharding to get it, "
        "such as `(None,)`), or reshard the others with `jax.sharding.reshard`.",
    )


_WORDS = {"vmap": ("mapped", "axis_size", "batch elements"), "scan": ("scanned", "length", "steps")}


def find_bad_output(trace: TraceAgain, plan: Plan, transform: str) -> errors.LiftError | None:
    """Find the output of a `vmap` or `pmap` that JAX rejects.

    Args:
      trace: Maps the function again; an output without an axis must not differ between the batch elements.
      plan: The arguments.
      transform: The name of the transform, for messages.

    Returns:
      The error to raise, or None if the axes are valid.
    """
    return find_rejected(
        trace, plan, _no_room, lambda part: part.prefix is None, lambda part: _not_shared(part, transform)
    )


def find_rejected(
    trace: TraceAgain,
    plan: Plan,
    no_room: Callable[[MappedLeaf], errors.LiftError | None],
    is_suspect: Callable[[MappedLeaf], bool],
    explain: Callable[[MappedLeaf], errors.LiftError],
) -> errors.LiftError | None:
    """Find the output of a mapped function that JAX rejects.

    Args:
      trace: Maps the function again.
      plan: The arguments.
      no_room: Returns the error for a leaf with too few axes; None if it has enough.
      is_suspect: Returns whether a leaf may be the one that JAX rejects.
      explain: Returns the error for that leaf.

    Returns:
      The error to raise; None if JAX rejects none.
    """
    parts: list[MappedLeaf] = []

    def take(chosen: Sequence[int], result: Result, prefixes: Sequence[Prefix]) -> list[Any]:
        parts[:] = parts or parts_of_result(plan, result, prefixes)
        return [result.leaves[i] for i in chosen]

    def fails(chosen: Sequence[int]) -> bool:
        try:
            trace(functools.partial(take, chosen), [parts[i].prefix for i in chosen])
        except ValueError:
            return True
        return False

    with frames.noting_writes() as lines:
        trace(functools.partial(take, ()), [])
    for part in parts:
        error = no_room(part)
        if error is not None:
            return error
    culprit = find_culprit([i for i, part in enumerate(parts) if is_suspect(part)], fails)
    return None if culprit is None else at_line(explain(parts[culprit]), lines.get(parts[culprit].name))


def find_culprit(suspects: list[int], fails: Callable[[list[int]], bool]) -> int | None:
    """Return the first of some suspects that makes a call fail, found by bisection; None if the call succeeds."""
    if not fails(suspects):
        return None
    while len(suspects) > 1:
        half = suspects[: len(suspects) // 2]
        suspects = half if fails(half) else suspects[len(half) :]
    return suspects[0]


def parts_of_result(plan: Plan, result: Result, prefixes: Sequence[Prefix]) -> list[MappedLeaf]:
    """Describe each leaf of a result.

    Args:
      plan: The arguments.
      result: The result.
      prefixes: The axis or spec of each leaf.

    Returns:
      The leaves.
    """
    names, updates = names_after(plan, result.change), set(map(Slot, result.change.written))

    def kind(slot: Slot) -> str:
        if slot in updates:
            return "update"
        return "output" if names[slot].startswith("the output") else "attached"

    pairs = zip(result.slots, prefixes, result.leaves, strict=True)
    return [
        MappedLeaf(kind(slot), names[slot], prefix, [np.shape(y) for y in jax.tree.leaves(x)])
        for slot, prefix, x in pairs
    ]


def _no_room(part: MappedLeaf) -> errors.LiftError | None:
    """Return the error for an array with too few axes to be stacked along its axis, or None."""
    if part.prefix is None:
        return None
    for shape in part.shapes:
        if not -len(shape) - 1 <= part.prefix <= len(shape):
            return errors.ArgumentError(
                f"Cannot stack {part.name} along axis {part.prefix}: its shape in each batch element is {shape}.",
                f"Use an axis from {-len(shape) - 1} to {len(shape)} in `out_axes` or, for a part of an argument, in "
                "`in_axes`.",
            )
    return None


def _not_shared(part: MappedLeaf, transform: str) -> errors.LiftError:
    """Return the error for a leaf without an axis that differs between the batch elements."""
    if part.kind == "output":
        return errors.ArgumentError(
            f"`out_axes` is None for {part.name}, but its value differs between the batch elements.",
            "Use an axis in `out_axes`, or reduce the value over the batch elements (for example with `jax.lax.pmean` "
            "and an `axis_name`).",
        )
    if part.kind == "attached":
        return errors.SharedWriteError(
            f"{part.name} was attached to a module that all batch elements of this {transform} share, but its value "
            "differs between them."
        )
    return errors.SharedWriteError(
        f"{part.name} is shared by all batch elements of this {transform}, but they write different values to it."
    )
