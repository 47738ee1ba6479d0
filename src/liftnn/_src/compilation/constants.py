"""The split of a call into arguments and constants, for `export`: captured and stored modules become constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.graph.description import GraphSpec, LeafPaths, NodeSpec
from liftnn._src.lifting.contract import STORED, Plan, Result


class ArgumentsOnly:
    """The part of a call that its arguments reach; its nodes come first, since the walk starts with the arguments.

    Args:
      plan: The arguments and constants.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        leaves = [leaf for leaf, path in enumerate(plan.leaf_paths) if path[0] < STORED]
        self.known = len(plan.reach(leaves))
        graph, treedefs = plan.graph, plan.graph.treedef.children()
        self.graph = GraphSpec(
            jax.tree_util.treedef_tuple(treedefs[:STORED]),
            graph.edges[: len(leaves)],
            graph.specs[: self.known],
            tuple([number for number in graph.frozen if number < self.known]),
            LeafPaths(graph.paths[: len(leaves)]),
        )
        self.slots = self.graph.slots
        """The slots of the leaves of this part, in order."""

    def take(self, leaves: Sequence[Any]) -> list[Any]:
        """Select the dynamic leaves of this part from those of the whole call."""
        by_slot = self.plan.by_slot(leaves)
        return [by_slot[slot] for slot in self.slots]

    def put(self, argument_leaves: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
        """Replace the dynamic leaves of this part among those of the whole call."""
        return self.plan.in_order(
            {**self.plan.by_slot(leaves), **dict(zip(self.slots, argument_leaves, strict=True))}
        )

    def cut(self, result: Result) -> Result:
        """Restrict the result of the whole call to this part.

        Args:
          result: The result of the whole call.

        Returns:
          The result; the numbers of new nodes follow those of this part.

        Raises:
          ArgumentError: If the function changes, returns or stores a constant.
        """
        change = result.change
        for number in result.written:
            if number >= self.known:
                raise self._error(number, "changes")

        def renumber(edge: Any) -> Any:
            if type(edge) is not int or edge < self.known:
                return edge
            if edge < change.known:
                raise self._error(edge, "returns or stores")
            return edge - change.known + self.known

        def cut(spec: NodeSpec) -> NodeSpec:
            return spec._replace(edges=tuple(map(renumber, spec.edges)))

        kept = change._replace(
            edges=tuple(map(renumber, change.edges)),
            known=self.known,
            changed=tuple([(number, cut(spec)) for number, spec in change.changed]),
            new=tuple(map(cut, change.new)),
            frozen=tuple(map(renumber, change.frozen)),
        )
        return result._replace(change=kept)

    def _error(self, number: int, what: str) -> errors.ArgumentError:
        return errors.ArgumentError(
            f"The function to export {what} {self.plan.typed_path(number)}, which is not one of its arguments. This "
            "object does not exist where the exported function is called.",
            "Pass the module as an argument. Only modules that the function just reads may be captured or stored in a "
            "partial.",
        )
