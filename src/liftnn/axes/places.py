"""The dynamic parts of a call by place: what branches have in common and what loops carry is told place by place.

A place is one of

- `("value", number)`: the value of a Variable,
- `("array", number, key)`: a bare array that a node holds,
- `("argument", leaf)`, `("output", leaf)`: a leaf of the arguments, or of the output, that is an array.

Known nodes have the same number before a call and after it, so their places do, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liftnn.axes.prefix import Placement, array_keys
from liftnn.graph.description import ARRAY
from liftnn.graph.kinds import VARIABLE
from liftnn.graph.merge import Change
from liftnn.lifting.after import full_specs, output_names, paths_after
from liftnn.lifting.result import Plan, Result
from liftnn.lifting.values import describe
from liftnn.trees import format_path

Place = tuple[Any, ...]


def argument_places(plan: Plan) -> tuple[list[Place], list[Place]]:
    """The places of what a pure call takes, in its order: of the values, and of the bare arrays."""
    arrays: list[Place] = [("argument", leaf) for leaf in plan.leaf_arrays]
    for number in plan.node_arrays:
        arrays += [("array", number, key) for key in array_keys(plan.graph.specs[number])]
    return [("value", number) for number in plan.variables], arrays


def open_arguments(plan: Plan, values: Sequence[Any], arrays: Sequence[Any]) -> dict[Place, Any]:
    """What a pure call takes, by place."""
    of_values, of_arrays = argument_places(plan)
    return dict(zip((*of_values, *of_arrays), (*values, *arrays), strict=True))


def close_arguments(plan: Plan, parts: Mapping[Place, Any]) -> tuple[list[Any], list[Any]]:
    """The inverse of `open_arguments`."""
    of_values, of_arrays = argument_places(plan)
    return [parts[p] for p in of_values], [parts[p] for p in of_arrays]


def result_places(plan: Plan, change: Change) -> Placement:
    """The places of what a pure call returns, in the order of its `Result`."""
    arrays: list[Place] = [("output", i) for i, edge in enumerate(change.edges) if edge is ARRAY]
    for number, spec in (*change.changed, *enumerate(change.new, change.known)):
        arrays += [("array", number, key) for key in array_keys(spec)]
    made = [n for n, spec in enumerate(change.new, change.known) if spec.kind is VARIABLE]
    return Placement(arrays, [("value", n) for n in made], [("value", n) for n in plan.variables])


def open_result(plan: Plan, result: Result) -> dict[Place, Any]:
    """What a pure call returned, by place; Variables that it did not write are left out."""
    places = result_places(plan, result.change)
    pairs = zip(
        (*places.arrays, *places.new, *places.updates),
        (*result.arrays, *result.new, *result.updates),
        strict=True,
    )
    return {place: x for place, x in pairs if x is not None}


def close_result(plan: Plan, change: Change, parts: Mapping[Place, Any]) -> Result:
    """The inverse of `open_result`.

    Args:
      plan: The arguments.
      change: The static part.
      parts: What belongs to each place; of an input Variable only if it is written.

    Returns:
      The result.
    """
    places = result_places(plan, change)
    return Result(
        [parts[p] for p in places.arrays],
        [parts[p] for p in places.new],
        [parts.get(p) for p in places.updates],
        change,
    )


def name_places(plan: Plan, change: Change) -> dict[Place, str]:
    """The path in words of everything that can be returned: Variables with their type."""
    after = paths_after(plan, change)

    def name(number: int, *keys: Any) -> str:
        if number not in after:
            return "the output"
        root, path = after[number]
        return format_path((*path, *keys), root)

    names: dict[Place, str] = {("output", i): text for i, text in enumerate(output_names(change))}
    names |= {("argument", i): text for i, text in enumerate(plan.leaf_names)}
    for number, spec in enumerate(full_specs(plan, change)):
        names |= {("array", number, key): name(number, key) for key in array_keys(spec)}
        if spec.kind is VARIABLE:
            where = plan.path_of(number) if number < change.known else name(number)
            names["value", number] = f"{where} (a {spec.type.__name__})"
    return names


def differing_types(plan: Plan, change: Change, pairs: Iterable[tuple[Place, Any, Any]]) -> list[str]:
    """How the types of values differ.

    Args:
      plan: The arguments.
      change: What was returned, made and changed.
      pairs: For each value its place, and two arrays or pytrees of them, which may be abstract.

    Returns:
      A line such as `args[0].count: int32[] -> float32[2]` for each that differs in tree, shape or dtype. Whether a
      dtype is weak makes no difference.
    """
    differing = [(place, x, y) for place, x, y in pairs if _typed(x) != _typed(y)]
    names = name_places(plan, change) if differing else {}  # all names take longer than to trace some layers
    return [f"{names[place]}: {describe(x, type_of)} -> {describe(y, type_of)}" for place, x, y in differing]


def _typed(x: Any) -> tuple[Any, list[str]]:
    """What two values of the same type have in common."""
    leaves, treedef = jax.tree.flatten(x)
    return treedef, list(map(type_of, leaves))


def type_of(x: Any) -> str:
    """Dtype and shape of an array in words."""
    dtype = x.dtype if hasattr(x, "dtype") else jnp.result_type(x)
    return f"{dtype}[{','.join(map(str, jnp.shape(x)))}]"
