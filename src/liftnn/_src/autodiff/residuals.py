"""Residuals of a custom VJP: modules are flattened in the forward pass and unflattened in the backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.graph.description import GraphSpec
from liftnn._src.graph.kinds import is_object
from liftnn._src.graph.merge import merge_all
from liftnn._src.graph.slots import ROOT, Slot
from liftnn._src.lifting.arguments import flatten_call
from liftnn._src.lifting.contract import Plan
from liftnn._src.lifting.leaks import holds_tracer
from liftnn._src.lifting.lift import values_of
from liftnn._src.lifting.values import decode
from liftnn._src.modules.iterate import iter_graph
from liftnn._src.static_values.static import Static
from liftnn._src.trees import Path, an
from liftnn._src.variables import frames
from liftnn._src.variables.metadata import Metadata
from liftnn._src.variables.variable import Variable, set_metadata_past_checks


class Residuals:
    """A pytree with the flattened residuals and nondiff arguments of a custom VJP.

    Args:
      graph: The structure.
      leaves: The dynamic leaves.
    """

    def __init__(self, graph: GraphSpec, leaves: list[Any]):
        self.graph = graph
        self.leaves = leaves


jax.tree_util.register_pytree_node(
    Residuals, lambda x: (x.leaves, x.graph), lambda graph, leaves: Residuals(graph, list(leaves))
)


def keep(tree: tuple[tuple[Any, ...], dict[str, Any]]) -> Residuals:
    """Flatten residuals, given as a tree `(args, kwargs)`."""
    flat = flatten_call(tree[0], tree[1], _static_leaf)
    return Residuals(flat.graph, [*values_of(Plan(flat.graph), flat.objects), *flat.arrays])


def _static_leaf(leaf: Any, path: Path, arrays: list[Any]) -> Static:
    """Return the edge of a residual that is neither an array nor a module."""
    if holds_tracer(leaf):
        raise errors.StructureError(
            f"The residuals of fwd contain {an(type(leaf))} that holds an array. It is static, so it cannot carry the "
            "array to bwd.",
            "Return arrays, modules, States or trees of them as residuals.",
        )
    return Static(leaf)


def merge_residuals(residuals: Residuals) -> Any:
    """Unflatten residuals, with new modules."""
    (args, _), _ = merge_all(residuals.graph, list(map(decode, residuals.leaves)), frames.owner_now())
    return args[0]


class Perturbed:
    """JAX's `perturbed` flags, for arrays and Variables in the arguments of `fwd`.

    Args:
      plan: The arguments.
      leaves: The dynamic leaves, with a `jax.custom_derivatives.CustomVJPPrimal` in place of each array.
    """

    def __init__(self, plan: Plan, leaves: Sequence[Any]):
        self.plan = plan
        self.by_slot = plan.by_slot(leaves)
        self.marked: list[tuple[Variable[Any], Metadata, Metadata]] = []

    def mark(self, args: Sequence[Any], diff: Sequence[int]) -> list[Any]:
        """Return the arguments for `fwd`: arrays with flags, and Variables with flags in their metadata.

        Args:
          args: The arguments.
          diff: Positions of the differentiated arguments.

        Returns:
          The arguments with flags.
        """
        objects = flatten_call(tuple(args), {}, lambda leaf, path, arrays: Static(leaf)).objects
        for number in self.plan.variables:
            if number >= len(objects):
                break  # arguments stored in a partial come last and are not passed to `fwd`
            variable = objects[number]
            before = variable._metadata
            flag = any(x.perturbed for x in jax.tree.leaves(self.by_slot[Slot(number)]))
            variable.set_metadata(perturbed=flag)
            self.marked.append((variable, before, variable._metadata))
        seen = list(args)
        for i in diff:
            leaves, treedef = jax.tree.flatten(args[i], is_leaf=is_object)
            slots = [Slot(ROOT, leaf) for leaf in self.plan.arguments[0][i].leaves]
            pairs = zip(leaves, slots, strict=True)
            seen[i] = treedef.unflatten([self.by_slot.get(slot, x) for x, slot in pairs])
        return seen

    def unmark(self, reached: Any) -> None:
        """Remove the flags, and keep the metadata that `fwd` changed.

        Args:
          reached: The arguments, and what `fwd` returned: copies of Variables have their flags.
        """
        known = {id(variable) for variable, _, _ in self.marked}
        with contextlib.suppress(errors.StructureError):  # raised later, with the path
            copies = [x for _, x in iter_graph(reached) if isinstance(x, Variable) and id(x) not in known]
            self.marked += [(x, Metadata.of({}), x._metadata) for x in copies if "perturbed" in x._metadata]
        for variable, before, marked in self.marked:
            now = variable._metadata
            if now is not marked or id(variable) not in known:
                entries = {**now.entries, "perturbed": before.get("perturbed")}
                before = Metadata.of({k: x for k, x in entries.items() if k != "perturbed" or k in before})
            set_metadata_past_checks(variable, before)
