"""The structure after a call, and where in it everything stands."""

from __future__ import annotations

from liftnn.graph.description import KEEP, NodeSpec, first_paths
from liftnn.graph.merge import Change
from liftnn.lifting.result import Plan
from liftnn.trees import Path, format_path


def specs_after(plan: Plan, change: Change) -> list[NodeSpec]:
    """The node specs after a call; of a changed node those edges that are new."""
    specs = [*plan.graph.specs, *change.new]
    for number, spec in change.changed:
        specs[number] = spec
    return specs


def full_specs(plan: Plan, change: Change) -> list[NodeSpec]:
    """The node specs after a call, those of changed nodes written out."""
    specs = [*plan.graph.specs, *change.new]
    for number, spec in change.changed:
        specs[number] = write_out(spec, plan.graph.specs[number])
    return specs


def write_out(spec: NodeSpec, old: NodeSpec) -> NodeSpec:
    """The spec of a changed node, with what it had before in place of KEEP."""
    had = dict(zip(old.keys, old.edges, strict=True))
    edges = [had[k] if e is KEEP else e for k, e in zip(spec.keys, spec.edges, strict=True)]
    return spec._replace(edges=tuple(edges))


def output_names(change: Change) -> list[str]:
    """What each leaf of the output is called, such as `the output[0].loss`."""
    return [format_path(path, "the output") for path in change.paths]


def paths_after(plan: Plan, change: Change) -> dict[int, tuple[str, Path]]:
    """Where every node stands after a call: the leaf of the arguments, or else of the output, and the path from it."""
    starts = [
        *zip(plan.graph.edges, plan.leaf_names, strict=True),
        *zip(change.edges, output_names(change), strict=True),
    ]
    return first_paths(specs_after(plan, change), starts)
