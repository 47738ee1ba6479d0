"""What is wrong with the axes of a `vmap`, by attribute path: JAX only knows the flat lists that it was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from liftnn import errors
from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.after import names_after
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.prefixes.prefix import Prefix, StateAxes
from liftnn._src.tracebacks import at_line
from liftnn._src.trees import is_jax_array, list_paths
from liftnn._src.variables import frames


class Part(NamedTuple):
    """One array, or value of a Variable, that goes into or comes out of a `vmap`.

    Args:
      name: Its path in words.
      axis: Its axis.
      shapes: The shapes of the arrays in it.
      kind: What it is: an argument, an output, a new value of an argument, or something attached to an argument.
    """

    name: str
    axis: Any
    shapes: list[tuple[int, ...]]
    kind: str = "argument"


def _part(name: str, axis: Prefix, value: Any, kind: str = "argument") -> Part:
    return Part(name, axis, [np.shape(x) for x in jax.tree.leaves(value)], kind)


def check_axes(option: str, axes: Any) -> None:
    """Refuses what is no axis.

    Args:
      option: The option it was given for, `"in_axes"` or `"out_axes"`.
      axes: A tree of axes.

    Raises:
      ArgumentTypeError: If something in it is neither an int nor None nor `StateAxes`.
    """
    for leaf in jax.tree.leaves(axes, is_leaf=lambda x: x is None):
        for axis in [a for _, a in leaf.pairs] if isinstance(leaf, StateAxes) else [leaf]:
            if axis is not None and type(axis) is not int:
                raise errors.ArgumentTypeError(
                    f"`{option}` has {axis!r}, which is no axis.",
                    "An axis is an int, or None for what all lanes share; of a module also StateAxes.",
                )


def find_bad_input(
    plan: Plan,
    leaves: Sequence[Any],
    axes: Sequence[Prefix],
    size: int | None,
    transform: str = "vmap",
    remedy: str | None = None,
) -> errors.LiftError | None:
    """Why the arguments of a `vmap`, a `scan` or another transform cannot be divided along their axes.

    Args:
      plan: The arguments.
      leaves: The dynamic leaves.
      axes: The axis of each.
      size: The number of lanes that was asked for, None if it was not.
      transform: What messages call the transform. The default is `"vmap"`.
      remedy: What to do. The default, None, is about `in_axes`.

    Returns:
      The error to raise, None if nothing is wrong with the axes.
    """
    done, option, each = _WORDS.get(transform, _WORDS["vmap"])
    sizes: dict[int, Callable[[], str]] = {} if size is None else {size: lambda: option}
    for i, (x, axis) in enumerate(zip(leaves, axes, strict=True)):
        if axis is None:
            continue
        for shape in [x.shape] if is_jax_array(x) else map(np.shape, jax.tree.leaves(x)):
            if not -len(shape) <= axis < len(shape):
                return errors.ArgumentError(
                    f"{plan.typed_name(plan.slots[i])} cannot be {done} over axis {axis}: its shape is {shape}.",
                    remedy or f"Give it another axis in `in_axes`, or None to share it between the {each}.",
                )
            if shape[axis] not in sizes:
                sizes[shape[axis]] = lambda i=i, axis=axis: f"axis {axis} of {plan.typed_name(plan.slots[i])}"
    if len(sizes) > 1:
        found = list_paths(f"{n}: {where()}" for n, where in sizes.items())
        return errors.ArgumentError(
            f"The arguments of {transform} have different sizes along their {done} axes:\n{found}",
            remedy or f"Give them the same size, or None in `in_axes` to what all {each} share.",
        )
    return None


_WORDS = {"vmap": ("mapped", "axis_size", "lanes"), "scan": ("scanned", "length", "steps")}


def find_bad_output(
    trace: Callable[[Callable[[Result, Sequence[Prefix]], Any]], Any], plan: Plan, transform: str
) -> errors.LiftError | None:
    """Why JAX refuses what a `vmap` or `pmap` returns.

    Args:
      trace: Maps the function once more; what is returned, instead of its result, is made by the callable that it is
        given, and is the same for all lanes, or raises a ValueError.
      plan: The arguments.
      transform: What messages call the transform.

    Returns:
      The error to raise, None if nothing is wrong with the axes.
    """
    parts: list[Part] = []

    def note(result: Result, axes: Sequence[Prefix]) -> None:
        parts.extend(
            _part(name, axis, x, kind) for kind, name, axis, x in parts_of_result(plan, result, axes)
        )

    with frames.noting_writes() as lines:
        trace(note)
    for part in parts:
        error = _no_room(part)
        if error is not None:
            return error
    shared = [i for i, part in enumerate(parts) if part.axis is None]

    def differ(chosen: list[int]) -> bool:
        def take(result: Result, axes: Sequence[Prefix]) -> Any:
            return [result.leaves[i] for i in chosen]

        try:
            trace(take)
        except ValueError:
            return True
        return False

    culprit = find_culprit(shared, differ)
    if culprit is None:
        return None
    part = parts[culprit]
    return at_line(_not_shared(part, transform), lines.get(part.name))


def find_culprit(suspects: list[int], fails: Callable[[list[int]], bool]) -> int | None:
    """The first of some suspects by which a call fails, found by bisection; None if it does not."""
    if not fails(suspects):
        return None
    while len(suspects) > 1:
        half = suspects[: len(suspects) // 2]
        suspects = half if fails(half) else suspects[len(half) :]
    return suspects[0]


def parts_of_result(
    plan: Plan, result: Result, prefixes: Sequence[Prefix]
) -> list[tuple[str, str, Prefix, Any]]:
    """What every leaf of a result is, with its path in words, its axis and its value.

    Args:
      plan: The arguments.
      result: The result.
      prefixes: The axis of each leaf.

    Returns:
      Kind (`"output"`, `"attached"` to an argument, or `"update"` of a Variable), name, axis and value.
    """
    names, updates = names_after(plan, result.change), set(map(Slot, result.change.written))

    def kind(slot: Slot) -> str:
        if slot in updates:
            return "update"
        return "output" if names[slot].startswith("the output") else "attached"

    pairs = zip(result.slots, prefixes, result.leaves, strict=True)
    return [(kind(slot), names[slot], prefix, x) for slot, prefix, x in pairs]


def _no_room(part: Part) -> errors.LiftError | None:
    """The error for an array that has too few axes for the lanes' one to be where it should."""
    if part.axis is None:
        return None
    for shape in part.shapes:
        if not -len(shape) - 1 <= part.axis <= len(shape):
            return errors.ArgumentError(
                f"{part.name} has the shape {shape} in each lane, so there is no axis {part.axis} to stack the lanes "
                "along.",
                "Correct the axis in `out_axes` or, for what belongs to an argument, in `in_axes`.",
            )
    return None


def _not_shared(part: Part, transform: str) -> errors.LiftError:
    """The error for something that all lanes should share and that differs between them."""
    if part.kind == "output":
        return errors.ArgumentError(
            f"`out_axes` is None for {part.name}, but its value differs between the lanes.",
            "Give it an axis, or reduce it over the lanes (for example with `jax.lax.pmean` and an `axis_name`).",
        )
    if part.kind == "attached":
        return errors.SharedWriteError(
            f"{part.name} was put into a module that is shared by all lanes of this {transform}, but it differs "
            "between them."
        )
    return errors.SharedWriteError(
        f"{part.name} is shared by all lanes of this {transform}, but they write different values to it."
    )
