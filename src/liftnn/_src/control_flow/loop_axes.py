"""The axes of a loop: which leaves of its arguments and outputs are scanned, carried or shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.control_flow.carry import Root
from liftnn._src.graph.merge import GraphDelta
from liftnn._src.graph.slots import ROOT, Slot
from liftnn._src.lifting.after import names_after
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.prefixes.prefix import Prefix, StateAxes, broadcast_over, is_prefix_leaf
from liftnn._src.prefixes.spread import Start, result_prefixes, spread_arguments
from liftnn._src.publish import PICKLED, publish
from liftnn._src.trees import is_leaf_tree, pair_prefix, treedef_text


class CarryType:
    """The type of `Carry`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Carry"

    def __reduce__(self) -> str:
        return "Carry"


Carry = CarryType()
"""Marks the carry in `in_axes` and `out_axes` of `scan`: the value that each step passes to the next one."""


class LoopAxes:
    """The axis of each leaf of a step's arguments and output; None if it is shared or carried.

    Args:
      plan: The arguments.
      marks: An axis, None, or Carry for each leaf of the arguments.
      in_axes: The same, as a tree prefix of the positional arguments.
      out_axes: A tree prefix of the output.
      leaves: The dynamic leaves.

    Raises:
      AliasingError: If a Variable is reached with two different axes.
    """

    def __init__(
        self,
        plan: Plan,
        marks: Sequence[Prefix],
        in_axes: Any,
        out_axes: Any,
        leaves: Sequence[Any],
    ):
        self.plan = plan
        self.in_axes = in_axes
        self.out_axes = out_axes
        self._marks = marks
        self._leaves = list(map(without_carry, marks))
        self._spread = spread_arguments(plan, self._leaves)
        shared = Start(None, "", None, plan.graph.specs)
        for number in range(len(plan.graph.specs)):  # a node that an earlier step made unreachable was shared
            self._spread.starts.setdefault(number, shared)
        self.of_leaves: list[Prefix] = self._spread.of_all(plan.slots, leaves)
        """The axis of each dynamic leaf."""
        self.scanned = {slot: axis for slot, axis in plan.by_slot(self.of_leaves).items() if axis is not None}
        """The axis of each scanned leaf."""

    @property
    def is_carry_known(self) -> bool:
        """Whether the carry is known: the steps share no Variable and no array leaf of a node that they could write."""
        return all(slot in self.scanned for slot in self.plan.slots if slot.node != ROOT)

    @property
    def carried_arguments(self) -> list[Slot]:
        """The slots of the array leaves among the arguments that are marked with Carry."""
        return [s for s in self.plan.slots if s.node == ROOT and self._marks[s.key] is Carry]

    def on(self, plan: Plan, leaves: Sequence[Any]) -> LoopAxes:
        """Return the same axes for arguments with the same leaves that reach other nodes."""
        return LoopAxes(plan, self._marks, self.in_axes, self.out_axes, leaves)

    def of_result(self, result: Result) -> dict[Slot, Prefix]:
        """Return the axis of each leaf of a step's result.

        Raises:
          AliasingError: If a Variable is returned or attached with two different axes.
          ArgumentError: If `out_axes` does not match the output, or if an array has too few axes to be stacked.
          ArgumentTypeError: If the output is not a pair, but `out_axes` is a pair of Carry and an axis.
        """
        self._check_pair(result.change.treedef)
        axes = result_prefixes(
            self.plan, self._spread, self.of_leaves, result, self.out_axes, settled=True, adapt=without_carry
        )
        for slot, x, axis in zip(result.slots, result.leaves, axes, strict=True):
            self._check_room(slot, x, axis, result.change)
        return dict(zip(result.slots, axes, strict=True))

    def _check_pair(self, output: Any) -> None:
        """Raise ArgumentTypeError if a step does not return the carry and an output, as in `jax.lax.scan`."""
        axes = self.out_axes
        if not isinstance(axes, tuple) or len(axes) != 2 or axes[0] is not Carry:
            return
        if len(output.children()) != 2:
            returned = "one value" if is_leaf_tree(output) else treedef_text(output)
            raise errors.ArgumentTypeError(
                f"The function of liftnn.scan must return a pair (carry, output), but it returns {returned}.",
                "Return `(carry, None)` if a step has no output; for other forms, set `out_axes`, such as "
                "`out_axes=liftnn.Carry` for the carry alone.",
            )

    def _check_room(self, slot: Slot, x: Any, axis: Prefix, change: GraphDelta) -> None:
        """Raise ArgumentError if an array has too few axes to be stacked along its axis."""
        for shape in map(jnp.shape, jax.tree.leaves(x)):
            if axis is not None and not -len(shape) - 1 <= axis <= len(shape):
                raise errors.ArgumentError(
                    f"Cannot stack {names_after(self.plan, change)[slot]} along axis {axis}: its shape in each step is "
                    f"{shape}.",
                    f"Use an axis from {-len(shape) - 1} to {len(shape)} in `out_axes` or, for a part of an argument, "
                    "in `in_axes`.",
                )

    def roots(self, change: GraphDelta, transform: str) -> list[Root]:
        """Return the leaves of the arguments as roots, before a step and after it.

        Args:
          change: The change of the graph that a step makes.
          transform: The name of the transform, for messages.

        Returns:
          One root for each leaf of the arguments.

        Raises:
          StructureError: If a step changes the tree structure of the carry.
        """
        self._check_trees(change, transform)
        axes = broadcast_over(self.out_axes, change.treedef, "the output")
        carried = [i for i, axis in enumerate(self._marks) if axis is Carry]
        outputs_of = dict(zip(carried, [i for i, axis in enumerate(axes) if axis is Carry], strict=True))
        roots: list[Root] = []
        for leaf, edge in enumerate(self.plan.graph.edges):
            output = outputs_of.get(leaf)
            shared = not _has_axis(self._leaves[leaf])
            roots.append(Root(leaf, edge if output is None else change.edges[output], output, shared))
        return roots

    def _check_trees(self, change: GraphDelta, transform: str) -> None:
        arguments = self.plan.graph.treedef.children()[0]
        passed = _carried_trees(self.in_axes, arguments)
        returned = _carried_trees(self.out_axes, change.treedef)
        if passed != returned and _as_tuple(passed) != returned and passed != _as_tuple(returned):
            one, two = (", ".join([treedef_text(t) for t in trees]) or "()" for trees in (passed, returned))
            raise errors.StructureError(
                f"The carry of liftnn.{transform} has the structure {one} before a step, but {two} after it.",
                "Return the carry with the same structure; in a scan, mark it with liftnn.Carry in both `in_axes` and "
                "`out_axes`.",
            )


def without_carry(axis: Prefix) -> Prefix:
    """Replace Carry by None in an axis: with either, a Variable is carried if and only if it is written."""
    if isinstance(axis, StateAxes):
        return StateAxes([(f, without_carry(a)) for f, a in axis.pairs])
    return None if axis is Carry else axis


def _has_axis(prefix: Prefix) -> bool:
    """Check whether a prefix scans any leaf."""
    axes = [a for _, a in prefix.pairs] if isinstance(prefix, StateAxes) else [prefix]
    return any(a is not None for a in axes)


def _carried_trees(axes: Any, treedef: Any) -> list[Any]:
    """Return the subtrees that are marked with Carry."""
    return [part for axis, part in pair_prefix(axes, treedef, is_prefix_leaf) if axis is Carry]


def _as_tuple(trees: list[Any]) -> list[Any]:
    """Combine several trees into one tuple."""
    return [jax.tree_util.treedef_tuple(trees)]


publish(CarryType, module=PICKLED)
