"""The structure after a call: node specs, and the attribute path of each node and dynamic leaf."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax

from liftnn._src.graph.description import KEEP, NodeSpec, first_paths
from liftnn._src.graph.kinds import VARIABLE
from liftnn._src.graph.merge import GraphDelta
from liftnn._src.graph.slots import OUTPUT, ROOT, Slot, array_keys
from liftnn._src.lifting.contract import Plan
from liftnn._src.lifting.values import describe
from liftnn._src.trees import Path, an, format_path, type_of


def specs_after(plan: Plan, change: GraphDelta) -> list[NodeSpec]:
    """Return the node specs after a call; unchanged edges of a changed node are KEEP."""
    specs = [*plan.graph.specs, *change.new]
    for number, spec in change.changed:
        specs[number] = spec
    return specs


def full_specs(plan: Plan, change: GraphDelta) -> list[NodeSpec]:
    """Return the node specs after a call, with the old edges in place of KEEP."""
    specs = [*plan.graph.specs, *change.new]
    for number, spec in change.changed:
        specs[number] = write_out(spec, plan.graph.specs[number])
    return specs


def write_out(spec: NodeSpec, old: NodeSpec) -> NodeSpec:
    """Return the spec of a changed node with its old edges in place of KEEP."""
    had = dict(zip(old.keys, old.edges, strict=True))
    edges = [had[k] if e is KEEP else e for k, e in zip(spec.keys, spec.edges, strict=True)]
    return spec._replace(edges=tuple(edges))


def output_names(change: GraphDelta) -> list[str]:
    """Return the name of each leaf of the output, such as `the output[0].loss`."""
    return [format_path(path, "the output") for path in change.paths]


def paths_after(plan: Plan, change: GraphDelta) -> dict[int, tuple[str, Path]]:
    """Return the position of every node after a call: a leaf of the arguments or the output, and the path from it."""
    starts = [
        *zip(plan.graph.edges, plan.leaf_names, strict=True),
        *zip(change.edges, output_names(change), strict=True),
    ]
    return first_paths(specs_after(plan, change), starts)


def names_after(plan: Plan, change: GraphDelta) -> dict[Slot, str]:
    """Return the attribute path of every dynamic leaf after a call; for the value of a Variable also its class."""
    after = paths_after(plan, change)

    def name(number: int, *keys: Any) -> str:
        if number not in after:
            return "the output"
        root, path = after[number]
        return format_path((*path, *keys), root)

    names: dict[Slot, str] = {Slot(OUTPUT, i): text for i, text in enumerate(output_names(change))}
    names |= {Slot(ROOT, i): text for i, text in enumerate(plan.leaf_names)}
    for number, spec in enumerate(full_specs(plan, change)):
        names |= {Slot(number, key): name(number, key) for key in array_keys(spec)}
        if spec.kind is VARIABLE:
            where = plan.path_of(number) if number < change.known else name(number)
            names[Slot(number)] = f"{where} ({an(spec.type)})"
    return names


def differing_types(plan: Plan, change: GraphDelta, pairs: Iterable[tuple[Slot, Any, Any]]) -> list[str]:
    """Describe the dynamic leaves with different types before and after a call.

    Args:
      plan: The arguments.
      change: The static description of what was returned, created and changed.
      pairs: The slot of each leaf, and two arrays or pytrees of arrays, which may be abstract.

    Returns:
      A line such as `args[0].count: int32[] -> float32[2]` for each leaf that differs in tree, shape or dtype. Weak
      types are ignored.
    """
    differing = [(slot, x, y) for slot, x, y in pairs if _typed(x) != _typed(y)]
    names = names_after(plan, change) if differing else {}  # computing all names can take longer than tracing
    return [f"{names[slot]}: {describe(x, type_of)} -> {describe(y, type_of)}" for slot, x, y in differing]


def _typed(x: Any) -> tuple[Any, list[str]]:
    """Return the type of a value: its tree, and the types of its leaves."""
    leaves, treedef = jax.tree.flatten(x)
    return treedef, list(map(type_of, leaves))
