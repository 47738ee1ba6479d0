"""The carry of a loop: the structure must be the same before and after each step.

The structures before and after a step are traversed in pairs, from the arguments that all steps share and from the
explicit carry. A known object must keep its position. A new object may replace an old one of the same structure (a
Variable that each step creates, a module that is returned instead of written); its leaves are then carried to the old
object's slots.

Scanned leaves are exempt: each step starts from the same structure of its slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from liftnn._src.graph.description import GraphSpec, LeafPaths, NodeSpec
from liftnn._src.graph.kinds import VARIABLE
from liftnn._src.graph.merge import GraphDelta
from liftnn._src.graph.slots import ARRAY, OUTPUT, ROOT, Slot
from liftnn._src.graph.views import describe_difference
from liftnn._src.lifting.after import full_specs
from liftnn._src.lifting.contract import Plan
from liftnn._src.trees import Path, format_path


class Root(NamedTuple):
    """One leaf of the arguments, before a step and after it.

    Args:
      leaf: The position of the leaf in the arguments.
      after: The edge after the step: the same as before, or the edge of the output that replaces the leaf in the carry.
      output: The position of that output; None if there is none.
      shared: Whether all steps share everything below the leaf. If not, they share at most some of its Variables.
    """

    leaf: int
    after: Any
    output: int | None
    shared: bool


class CarryMatch:
    """The match of the carry's slots before and after a step.

    Args:
      plan: The arguments.
      change: The change of the graph that a step makes.
      roots: The roots of the traversal.
      shared: Whether all steps share a Variable, by its number.
    """

    def __init__(
        self,
        plan: Plan,
        change: GraphDelta,
        roots: Sequence[Root],
        shared: Mapping[int, bool],
    ):
        self.plan = plan
        self.before: Sequence[NodeSpec] = plan.graph.specs
        self.after = full_specs(plan, change)
        self.known = change.known
        self.roots = roots
        self.shared = shared
        self.slots: dict[Slot, Slot] = {}
        """The slot after a step of each shared slot before it."""
        self.conflicts: list[str] = []
        """The changes that prevent another step, one line per path."""
        self._images: dict[int, int] = {}
        self._origins: dict[int, int] = {}
        shares_parts = any(shared.values())
        for root in roots:
            if root.shared or shares_parts:
                self._walk(root)

    def describe(self) -> list[str]:
        """Describe the changes that prevent another step, one line per path; an empty list if there are none."""
        if not self.conflicts:
            return []
        shared = [root for root in self.roots if root.shared]
        treedef, paths = jax.tree.structure([0] * len(shared)), LeafPaths([(i,) for i in range(len(shared))])
        edges = [self.plan.graph.edges[root.leaf] for root in shared], [root.after for root in shared]
        before = GraphSpec(treedef, tuple(edges[0]), tuple(self.before), (), paths)
        after = GraphSpec(treedef, tuple(edges[1]), tuple(self.after), (), paths)

        def name(path: Path) -> str:
            return format_path(path[1:], self.plan.leaf_names[shared[path[0]].leaf])

        return describe_difference(before, after, name).splitlines() or self.conflicts

    def _walk(self, root: Root) -> None:
        """Traverse the structures before and after a step in pairs, from a root."""
        edge = self.plan.graph.edges[root.leaf]
        if edge is ARRAY and root.after is ARRAY and root.output is not None:
            self.slots[Slot(ROOT, root.leaf)] = Slot(OUTPUT, root.output)
        stack: list[tuple[Any, Any, bool, Path]] = [(edge, root.after, root.shared, ())]
        seen: set[tuple[int, int, bool]] = set()
        while stack:
            old, new, shared, path = stack.pop()
            if type(old) is not int or type(new) is not int:
                if shared and old != new:
                    self._note(root, path, "different after a step")
                continue
            if root.shared and old in self.plan.sliced:  # it belongs to a single step
                continue
            one, two = self.before[old], self.after[new]
            # a step that replaces a shared Variable below a scanned object changes only its own slice
            shared = shared or (one.kind is VARIABLE and self.shared[old] and old == new)
            if (old, new, shared) in seen:
                continue
            seen.add((old, new, shared))
            if shared and not self._pair(root, path, old, new):
                continue
            after = dict(zip(two.keys, two.edges, strict=True))
            pairs = [(k, e, after[k]) for k, e in zip(one.keys, one.edges, strict=True) if k in after]
            stack += [(e, f, shared, (*path, k)) for k, e, f in pairs]
            if shared:
                arrays = [k for k, e, f in pairs if e is ARRAY and f is ARRAY]
                self.slots |= {Slot(old, k): Slot(new, k) for k in arrays}

    def _pair(self, root: Root, path: Path, old: int, new: int) -> bool:
        """Pair an object before a step with one after it; return False and note a conflict if that is impossible."""
        known = old != new and new < self.known
        if known or self._images.setdefault(old, new) != new or self._origins.setdefault(new, old) != old:
            self._note(root, path, "replaced by an object that is or was at another path too")
            return False
        one, two = self.before[old], self.after[new]
        if one[:4] != two[:4]:
            self._note(root, path, "different after a step")
        if one.kind is VARIABLE and two.kind is VARIABLE:
            self.slots[Slot(old)] = Slot(new)
        return True

    def _note(self, root: Root, path: Path, what: str) -> None:
        self.conflicts.append(f"{format_path(path, self.plan.leaf_names[root.leaf])}: {what}")
