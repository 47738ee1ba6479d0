"""What of a call its arguments reach, apart from what a partial stores and the function captures: its constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.graph.description import GraphSpec, LeafPaths, NodeSpec
from liftnn._src.lifting.contract import STORED, Plan, Result


class ArgumentsOnly:
    """The part of a call that its arguments reach. Its nodes are the first ones, since the walk begins with them.

    Args:
      plan: The whole call.
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
        """The slots of the leaves, in their own order."""

    def take(self, leaves: Sequence[Any]) -> list[Any]:
        """The dynamic leaves of this part, of those of the whole call."""
        by_slot = self.plan.by_slot(leaves)
        return [by_slot[slot] for slot in self.slots]

    def put(self, own: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
        """The dynamic leaves of the whole call, with others for this part."""
        return self.plan.in_order({**self.plan.by_slot(leaves), **dict(zip(self.slots, own, strict=True))})

    def cut(self, result: Result) -> Result:
        """The result of this part.

        Args:
          result: That of the whole call.

        Returns:
          The result, new nodes numbered on from those of this part.

        Raises:
          ArgumentError: If the function changes a constant, or returns one.
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
            f"The function to export {what} {self.plan.typed_path(number)}, which is not among "
            "its arguments: where the exported function is called, there is no such object.",
            "Pass the module as an argument. What is only read may be captured, or stored in a partial.",
        )
