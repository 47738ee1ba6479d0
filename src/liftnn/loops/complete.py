"""Branches: what they have to agree on, and their results made alike though they write different things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn.axes.places import (
    close_result,
    differing_types,
    open_arguments,
    open_result,
    result_places,
)
from liftnn.graph.description import KEEP, Description, LeafPaths, keep_leaves
from liftnn.graph.merge import Change
from liftnn.graph.views import describe_difference
from liftnn.lifting.after import full_specs
from liftnn.lifting.result import Plan, Result
from liftnn.trees import Path, format_path, list_paths

_REMEDY = (
    "Which branch runs is known only when the program does. Change structure, shapes and dtypes in all branches alike, "
    "or after the call."
)


class Completion:
    """What several results of the same arguments have in common, so that each can be given the parts of all.

    A Variable or bare array that one of them writes is a part of every one.

    Args:
      plan: The arguments.
      results: The results, which may be abstract.
      values: The values of the Variables.
      arrays: The bare arrays.
      names: What the results are called, for messages.
      transform: What messages call the transform.

    Raises:
      StructureError: If they differ in structure, or in the shape or dtype of a part; the message has the paths.
    """

    def __init__(
        self,
        plan: Plan,
        results: Sequence[Result],
        values: Sequence[Any],
        arrays: Sequence[Any],
        names: Sequence[str],
        transform: str,
    ):
        self.plan = plan
        self._inputs = open_arguments(plan, values, arrays)
        self.change = _common_change(plan, [r.change for r in results], names, transform)
        updates = zip(*[r.updates for r in results], strict=True)
        slots = [i for i, several in enumerate(updates) if any(x is not None for x in several)]
        places = result_places(plan, self.change)
        self.places = [*places.arrays, *places.new, *(places.updates[i] for i in slots)]
        one, *others = [self.complete(r) for r in results]
        for name, other in zip(names[1:], others, strict=True):
            lines = differing_types(plan, self.change, zip(self.places, one, other, strict=True))
            if lines:
                raise _error(transform, names[0], name, "shapes or dtypes", lines)

    def complete(self, result: Result) -> list[Any]:
        """All parts of one of the results; those that it lacks are as in the arguments."""
        parts = open_result(self.plan, result)
        return [parts[p] if p in parts else self._inputs[p] for p in self.places]

    def close(self, parts: Sequence[Any]) -> Result:
        """The result that has these parts."""
        return close_result(self.plan, self.change, dict(zip(self.places, parts, strict=True)))


def _common_change(plan: Plan, changes: Sequence[Change], names: Sequence[str], transform: str) -> Change:
    """The change that all branches make, in which everything is written out that one of them writes out."""
    first, specs = changes[0], full_specs(plan, changes[0])
    for name, other in zip(names[1:], changes[1:], strict=True):
        if (first.treedef, first.edges, specs) != (other.treedef, other.edges, full_specs(plan, other)):
            lines = _describe(plan, first, other)
            raise _error(transform, names[0], name, "structures", lines)
    by_number = [dict(change.changed) for change in changes]
    changed: list[tuple[int, Any]] = []
    for number in sorted(set().union(*by_number)):
        unchanged = keep_leaves(specs[number])
        edges = zip(*[c.get(number, unchanged).edges for c in by_number], strict=True)
        kept = [all(e is KEEP for e in several) for several in edges]
        own = [KEEP if k else e for k, e in zip(kept, specs[number].edges, strict=True)]
        changed.append((number, specs[number]._replace(edges=tuple(own))))
    return first._replace(changed=tuple(changed))


def _describe(plan: Plan, one: Change, other: Change) -> list[str]:
    """How the structures after two branches differ, a line for each path."""
    before, after = (
        Description(
            jax.tree_util.treedef_tuple((plan.graph.treedef, change.treedef)),
            (*plan.graph.edges, *change.edges),
            tuple(full_specs(plan, change)),
            (),
            LeafPaths([*plan.graph.paths.below(0), *change.paths.below(1)]),
        )
        for change in (one, other)
    )

    def name(path: Path) -> str:
        return format_path(path[1:], "the output") if path[0] else plan.name(path[1:])

    return describe_difference(before, after, name).splitlines() or [
        "one of them puts a new object in place of an old one, or exchanges two"
    ]


def _error(transform: str, one: str, other: str, what: str, lines: list[str]) -> errors.StructureError:
    return errors.StructureError(
        f"{one} and {other} of liftnn.{transform} leave different {what} ({one} -> {other}):\n{list_paths(lines)}",
        _REMEDY,
    )
