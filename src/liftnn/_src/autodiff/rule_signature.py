"""One call of a function with a rule: the differentiated arguments, and the updates that function and rule make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.autodiff.diff_leaves import DiffLeaves
from liftnn._src.autodiff.outputs import Outputs
from liftnn._src.autodiff.selection import DiffState, Selection
from liftnn._src.autodiff.tangents import Like, describe
from liftnn._src.graph.merge import GraphDelta
from liftnn._src.lifting.contract import Plan, Result, result_of
from liftnn._src.trees import list_paths


class Signature:
    """The arguments of one call of a function with a rule, and the updates that function and rule make.

    Args:
      plan: The arguments.
      nondiff: Positions of the arguments that are not differentiated.
      leaves: The dynamic leaves.
      names: The names of the function and the rule, for messages.
    """

    def __init__(
        self,
        plan: Plan,
        nondiff: set[int],
        leaves: Sequence[Any],
        names: tuple[str, str],
    ):
        self.plan = plan
        count = len(plan.arguments[0])
        self.nondiff = [i for i in range(count) if i in nondiff]
        self.diff = [i for i in range(count) if i not in nondiff]
        selection = Selection(plan, [DiffState(i, ...) for i in self.diff], "none")
        self.diff_leaves: DiffLeaves = selection.pick(leaves)
        self.like: Like = describe(self.diff_leaves.take(leaves))
        self.names = names
        self._changes: dict[str, GraphDelta] = {}

    def agreed(self, name: str, result: Result) -> Result:
        """Return the result if the function and the rule make the same updates.

        Args:
          name: The source of the result: the name of the function or of the rule.
          result: The result.

        Returns:
          The result.

        Raises:
          StructureError: If both have run and differ; the message names the paths.
        """
        self._changes[name] = result.change
        lines = self._differences() if len(self._changes) == 2 else []
        if lines:
            raise errors.StructureError(
                f"The outputs or module updates of {self.names[1]} and {self.names[0]} differ:\n{list_paths(lines)}",
                f"Call the function inside {self.names[1]}, or make the same updates there.",
            )
        return result

    def _differences(self) -> list[str]:
        """Return the differences between the function and the rule, one line per path."""
        one, other = (self._changes[name] for name in self.names)
        by_one = sorted({*one.written} ^ {*other.written})
        lines = [f"{self.plan.path_of(n)}: written by {self.names[n in other.written]} only" for n in by_one]
        if one.treedef != other.treedef:
            return [*lines, "the output: a different structure"]
        if one == other or lines:
            return lines
        changed = {n for n, _ in set(one.changed) ^ set(other.changed)}
        lines = [f"{self.plan.path_of(n)}: changed in a different way" for n in sorted(changed)]
        return lines or ["the output: different objects"]


def outputs_of(plan: Plan, result: Result, leaves: Sequence[Any]) -> tuple[Outputs, DiffLeaves, list[Any]]:
    """Describe the output of a call and select its differentiable leaves.

    Args:
      plan: The arguments.
      result: The result, or its cotangents or tangents.
      leaves: The dynamic leaves that the call was given; None where the derivatives are unknown.

    Returns:
      The plan of the output, its differentiable leaves, and all its dynamic leaves.
    """
    outputs = Outputs(plan, result.change)
    contents = outputs.contents(result, plan.by_slot(leaves))
    return outputs, outputs.pick(contents), contents


def only_output_has_derivatives(plan: Plan, result: Result) -> Result:
    """Stop the derivatives of what a call has written, which the rule does not give.

    JAX would pass their zeros to the rule, which fails if they are mapped and the written values are not.

    Args:
      plan: The arguments.
      result: The result.

    Returns:
      The result; what the function returns keeps its derivatives.
    """
    outputs, diff_leaves, contents = outputs_of(plan, result, [None] * len(plan.slots))
    stopped = result_of(result.change, {k: jax.lax.stop_gradient(x) for k, x in result.by_slot.items()})
    return outputs.scatter(diff_leaves, diff_leaves.take(contents), stopped)
