"""The union of the results of several branches: checks that they agree, and completes each with the leaves of all."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.control_flow.functions import renaming
from liftnn._src.graph.build_order import in_build_order
from liftnn._src.graph.description import KEEP, GraphSpec, LeafPaths, keep_leaves
from liftnn._src.graph.merge import GraphDelta
from liftnn._src.graph.views import describe_difference
from liftnn._src.lifting.after import differing_types, full_specs, names_after
from liftnn._src.lifting.contract import Plan, Result, result_of
from liftnn._src.trees import Path, format_path, list_paths

_BRANCH_REMEDY = (
    "Structure, shapes and dtypes must not depend on the branch that runs. Make the same changes in all branches, or "
    "make them after the call."
)
_CLONE_REMEDY = (
    "Which object is returned must not depend on the branch that runs. Return `liftnn.clone(x)` in each branch: a new "
    "object with the values of the chosen one."
)

_NONE_REMEDY = (
    "One of the branches returns None, and the other does not. Where the output is not needed, return nothing in each "
    "branch: write `def step(): optimizer.update(model, grads)`, since `lambda: optimizer.update(model, grads)` "
    "returns the updates. Otherwise return outputs of the same structure."
)

_OUTPUT = "the output"
"""What messages call the result of a branch."""
_OUTPUT_PATH = re.compile(r"\bat path \[(\d+)\]")
"""JAX's name for a leaf of the output."""


class BranchUnion:
    """The common structure of several results of the same arguments.

    A Variable or array leaf that one branch writes is a leaf of the common result; `complete` adds it to the results of
    the other branches.

    Args:
      plan: The arguments.
      results: The results, which may be abstract.
      leaves: The dynamic leaves.
      names: The names of the branches, for messages.
      transform: The name of the transform, for messages.
      remedy: What to do if they differ. The default is for branches.

    Raises:
      StructureError: If results differ in structure, shapes or dtypes; the message names the paths.
    """

    def __init__(
        self,
        plan: Plan,
        results: Sequence[Result],
        leaves: Sequence[Any],
        names: Sequence[str],
        transform: str,
        remedy: str = _BRANCH_REMEDY,
    ):
        self.plan = plan
        self._inputs = plan.by_slot(leaves)
        self.change = _common_change(plan, [r.change for r in results], names, transform, remedy)
        self.slots = self.change.slots
        one, *others = [self.complete(r) for r in results]
        for name, other in zip(names[1:], others, strict=True):
            lines = differing_types(plan, self.change, zip(self.slots, one, other, strict=True))
            if lines:
                raise _error(transform, names[0], name, "shapes or dtypes", lines, remedy)

    def complete(self, result: Result) -> list[Any]:
        """Return all leaves of a result, with missing ones taken from the arguments."""
        return result_of(self.change, {**self._inputs, **result.by_slot}).leaves

    def naming(self) -> contextlib.AbstractContextManager[None]:
        """Name the leaves of the result in JAX's errors by their attribute paths."""
        return renaming(_OUTPUT_PATH, self._name, TypeError)

    def _name(self, found: re.Match[str]) -> str:
        """Return the attribute path of a leaf of the result."""
        return f"at {names_after(self.plan, self.change)[self.slots[int(found[1])]]}"

    def result(self, leaves: Sequence[Any]) -> Result:
        """Return the common result with these leaves."""
        return Result(list(leaves), self.change)


def _common_change(
    plan: Plan, changes: Sequence[GraphDelta], names: Sequence[str], transform: str, remedy: str
) -> GraphDelta:
    """Return the common change of all branches, with every leaf that any of them writes."""
    first, specs = changes[0], full_specs(plan, changes[0])
    for name, other in zip(names[1:], changes[1:], strict=True):
        if (first.treedef, first.edges, specs) != (other.treedef, other.edges, full_specs(plan, other)):
            lines = _describe(plan, first, other)
            raise _error(
                transform, names[0], name, "structures", lines, _remedy_for(first, other, lines) or remedy
            )
    by_number = [dict(change.changed) for change in changes]
    changed: list[tuple[int, Any]] = []
    for number in sorted(set().union(*by_number)):
        unchanged = keep_leaves(specs[number])
        edges = zip(*[c.get(number, unchanged).edges for c in by_number], strict=True)
        kept = [all(e is KEEP for e in several) for several in edges]
        merged = [KEEP if k else e for k, e in zip(kept, specs[number].edges, strict=True)]
        changed.append((number, specs[number]._replace(edges=tuple(merged))))
    written = sorted({number for change in changes for number in change.written})
    frozen = in_build_order(specs, dict.fromkeys(n for change in changes for n in change.frozen))
    return first._replace(changed=tuple(changed), frozen=tuple(frozen), written=tuple(written))


def _describe(plan: Plan, one: GraphDelta, other: GraphDelta) -> list[str]:
    """Describe the difference of the structures after two branches, one line per path."""
    before, after = (
        GraphSpec(
            jax.tree_util.treedef_tuple((plan.graph.treedef, change.treedef)),
            (*plan.graph.edges, *change.edges),
            tuple(full_specs(plan, change)),
            (),
            LeafPaths([*plan.graph.paths.below(0), *change.paths.below(1)]),
        )
        for change in (one, other)
    )

    def name(path: Path) -> str:
        return format_path(path[1:], _OUTPUT) if path[0] else plan.path_name(path[1:])

    return describe_difference(before, after, name).splitlines() or [
        "only one of them replaces an object by a new one, or swaps two objects"
    ]


def _remedy_for(one: GraphDelta, other: GraphDelta, lines: Sequence[str]) -> str:
    """Return what to do about two branches whose structures differ in these lines; empty if it is not known."""
    if _return_two_objects(one, other):
        return _CLONE_REMEDY
    nothing = jax.tree.structure(None)
    if (one.treedef == nothing) != (other.treedef == nothing) and all(x.startswith(_OUTPUT) for x in lines):
        return _NONE_REMEDY
    return ""


def _return_two_objects(one: GraphDelta, other: GraphDelta) -> bool:
    """Return whether an output is one known object after one branch, and another one, or a new one, after the other."""
    pairs = [(a, b) for a, b in zip(one.edges, other.edges, strict=False) if type(a) is type(b) is int]
    return any(a != b and min(a, b) < one.known for a, b in pairs)


def _error(
    transform: str, one: str, other: str, what: str, lines: list[str], remedy: str
) -> errors.StructureError:
    return errors.StructureError(
        f"{one} and {other} of liftnn.{transform} produce different {what} ({one} -> {other}):\n{list_paths(lines)}",
        remedy,
    )
