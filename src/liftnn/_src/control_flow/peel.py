"""The peeled first iteration of a loop, for bodies that change the structure in the first step only.

Examples are a cache that the first call creates, and a static attribute that is set once. The other steps are then a
loop that starts from the state after the first step. Known objects keep their numbers, and objects that the first step
creates get the next numbers. A slot is therefore the same before and after the step, and the changes of the step and of
the loop can be added. Scanned leaves are not carried: each step starts from the structure of its slices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Set
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.control_flow.loop_axes import LoopAxes
from liftnn._src.graph.description import GraphSpec, NodeSpec, reach
from liftnn._src.graph.kinds import LIST
from liftnn._src.graph.merge import GraphDelta
from liftnn._src.graph.slots import OUTPUT, ROOT, BySlot, Slot
from liftnn._src.lifting.after import full_specs, write_out
from liftnn._src.lifting.contract import Plan, Result, result_of
from liftnn._src.trees import Path

_NOT_CARRIED = NodeSpec(LIST, list, None, (), ())
"""The placeholder of a node that the first step created and did not carry."""


class SpecAfterStep(Plan):
    """The arguments after the first step.

    Args:
      before: The arguments before the step.
      graph: Their structure after it.
    """

    def __init__(self, before: Plan, graph: GraphSpec):
        super().__init__(graph, before.names)
        self._before = before

    @functools.cached_property
    def node_paths(self) -> dict[int, tuple[Path, ...]]:
        """The paths of each node; for a node that is no longer reachable, its former paths."""
        gone = dict.fromkeys(range(len(self.graph.specs)), ((0,),))
        return {**gone, **self._before.node_paths, **Plan(self.graph).node_paths}


class FirstStep:
    """The peeled first step, and the arguments of the loop of the other steps.

    Args:
      pure: The pure function of the step.
      axes: The scanned axes.
      parts: The dynamic leaves for the step, by slot.
      transform: The name of the transform, for messages.

    Raises:
      StructureError: If the step changes the tree structure of the carry.
    """

    def __init__(self, pure: Callable[..., Result], axes: LoopAxes, parts: BySlot, transform: str):
        self._axes = axes
        plan = self._plan = axes.plan
        result = pure(plan.in_order(parts))
        change = self._change = result.change
        self._returned = result.by_slot
        self._roots = axes.roots(change, transform)
        self._after = full_specs(plan, change)
        self._unshared = self._find_unshared()
        kept = [n for n in range(change.known) if n not in self._unshared]
        self._kept = self._reach_shared([*(r.after for r in self._roots if r.shared), *kept]) - self._unshared
        specs = [
            self._after[n] if n in self._kept else plan.graph.specs[n] if n < change.known else _NOT_CARRIED
            for n in range(len(self._after))
        ]
        edges = [plan.graph.edges[r.leaf] if r.output is None else r.after for r in self._roots]
        renewed = [n for n in change.frozen if n in self._kept]
        same = [n for n in plan.graph.frozen if n not in renewed]
        frozen = sorted(same, key=self._unshared.__contains__)
        at = next((i for i, n in enumerate(frozen) if n in self._unshared), len(frozen))
        # Nodes of a single step may contain shared nodes, which must be built first.
        order = (*frozen[:at], *renewed, *frozen[at:])
        graph = GraphSpec(plan.graph.treedef, tuple(edges), tuple(specs), order, plan.graph.paths)
        self.plan = SpecAfterStep(plan, graph)

    def followed_by(
        self,
        run: Callable[[LoopAxes, BySlot], Result],
        parts: BySlot,
        unsettled: errors.StructureError,
        *,
        restarted: Collection[Slot] = (),
        reverse: bool = False,
    ) -> Result:
        """Run the other steps and return the result of the whole loop.

        Args:
          run: Runs the other steps, from the scanned axes and their dynamic leaves by slot.
          parts: The dynamic leaves for the first step, with the scanned leaves of the other steps.
          unsettled: The error to raise if the results cannot be combined.
          restarted: Slots with the same initial value in each step. The default is none.
          reverse: Whether the first step has the last slice. The default is False.

        Returns:
          The result.

        Raises:
          StructureError: If the first step and the other steps stack different structures.
        """
        next_parts = self._next_parts(parts, restarted)
        axes = self._axes.on(self.plan, self.plan.in_order(next_parts))
        result = self._result(run(axes, next_parts), axes, reverse)
        if result is None:
            raise unsettled
        return result

    def _next_parts(self, parts: BySlot, restarted: Collection[Slot]) -> dict[Slot, Any]:
        """Return the dynamic leaves for the other steps, by slot."""
        outputs = {Slot(ROOT, r.leaf): Slot(OUTPUT, r.output) for r in self._roots if r.output is not None}
        next_parts: dict[Slot, Any] = {}
        for slot in self.plan.slots:
            after = outputs.get(slot, slot)
            fixed = slot in restarted or slot.node in self._unshared
            next_parts[slot] = parts[slot] if fixed or after not in self._returned else self._returned[after]
        return next_parts

    def _result(self, rest: Result, axes: LoopAxes, reverse: bool) -> Result | None:
        """Return the result of all steps from the result of the other steps; None if the stacked structures differ."""
        pairs = self._pair(rest.change)
        if pairs is None:
            return None
        parts = {slot: x for slot, x in self._returned.items() if slot.node in self._kept}
        unmatched = self._returned.keys() - parts.keys()
        unmatched -= {Slot(OUTPUT, r.output) for r in self._roots}
        along = axes.of_result(rest)
        for slot, x in rest.by_slot.items():
            if along[slot] is not None:
                first = slot._replace(node=pairs.get(slot.node, slot.node))
                if first not in unmatched:
                    return None
                unmatched.remove(first)
                x = _join(self._returned[first], x, along[slot], reverse)
            parts[slot] = x
        return None if unmatched else result_of(self._add(rest.change), parts)

    def _find_unshared(self) -> set[int]:
        """Return the nodes that belong to a single step."""
        scanned = reach(
            self._plan.graph.specs, [self._plan.graph.edges[r.leaf] for r in self._roots if not r.shared]
        )
        shared = [r.after for r in self._roots if r.shared]
        shared += [n for n in self._plan.variables if Slot(n) not in self._axes.scanned]
        return scanned.keys() - self._reach_shared(shared)

    def _reach_shared(self, edges: list[Any]) -> Set[int]:
        """Return the nodes that all steps share, from their edges after the first step."""
        return reach(self._after, edges, without=self._axes.plan.sliced).keys()

    def _pair(self, change: GraphDelta) -> dict[int, int] | None:
        """Map the nodes of a single other step to those of the first step; None if their structures differ."""
        if change.treedef != self._change.treedef:
            return None
        after = full_specs(self.plan, change)
        carried = {r.output for r in self._roots}
        scanned = [self._plan.graph.edges[r.leaf] for r in self._roots if not r.shared]
        stack = [(e, e) for e in scanned]
        outputs = enumerate(zip(self._change.edges, change.edges, strict=True))
        stack += [pair for i, pair in outputs if i not in carried]
        pairs: dict[int, int] = {}
        while stack:
            first, other = stack.pop()
            if type(first) is not int or type(other) is not int or first in self._kept or other in self._kept:
                if first != other:
                    return None
            elif other not in pairs:
                pairs[other] = first
                one, two = self._after[first], after[other]
                if one[:4] != two[:4]:
                    return None
                stack += zip(one.edges, two.edges, strict=True)
            elif pairs[other] != first:
                return None
        return pairs if len(set(pairs.values())) == len(pairs) else None

    def _add(self, change: GraphDelta) -> GraphDelta:
        """Return the change of all steps: the change of the first step plus that of the others."""
        one = {n: spec for n, spec in self._change.changed if n in self._kept}
        two = dict(change.changed)
        both = {
            n: write_out(two[n], one[n]) if n in two and n in one else two.get(n) or one[n] for n in one | two
        }
        known = self._change.known
        created = [
            write_out(two[n], spec) if n in two else spec
            for n, spec in enumerate(self.plan.graph.specs[known:], known)
        ]
        frozen = [n for n in self._change.frozen if n in self._kept and n not in change.frozen]
        written = {*change.written, *(n for n in self._change.written if n in self._kept)}
        return change._replace(
            known=known,
            changed=tuple([(n, both[n]) for n in sorted(both) if n < known]),
            new=(*created, *change.new),
            frozen=(*frozen, *change.frozen),
            written=tuple(sorted(n for n in written if n < known)),
        )


def _join(first: Any, others: Any, axis: int, reverse: bool) -> Any:
    """Concatenate the output of the first step with the stacked outputs of the others."""

    def join(x: Any, y: Any) -> Any:
        pair = [jnp.expand_dims(x, axis), y]
        return jnp.concatenate(pair[::-1] if reverse else pair, axis)

    return jax.tree.map(join, first, others)
