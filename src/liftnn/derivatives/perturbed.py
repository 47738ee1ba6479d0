"""What the forward pass of a `custom_vjp` sees of which arguments are differentiated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from liftnn.graph.kinds import is_object
from liftnn.lifting.arguments import flatten_call
from liftnn.lifting.result import Plan
from liftnn.variables.metadata import Metadata
from liftnn.variables.static import Static
from liftnn.variables.variable import Variable, set_metadata_past_checks


class Perturbed:
    """JAX's `perturbed`, on arrays and on Variables.

    Args:
      plan: The arguments.
      values: The values of the Variables, with a `jax.custom_derivatives.CustomVJPPrimal` in place of each array.
      arrays: The bare arrays, likewise.
    """

    def __init__(self, plan: Plan, values: Sequence[Any], arrays: Sequence[Any]):
        self.plan = plan
        self.values = [any(x.perturbed for x in jax.tree.leaves(value)) for value in values]
        self.arrays = arrays
        self.marked: list[tuple[Variable[Any], Metadata, Metadata]] = []

    def mark(self, args: Sequence[Any], diff: Sequence[int]) -> list[Any]:
        """The arguments as `fwd` sees them; Variables are marked in their metadata.

        Args:
          args: The arguments.
          diff: Positions of those with derivatives.

        Returns:
          The arguments.
        """
        objects = flatten_call(tuple(args), {}, lambda leaf, path, arrays: Static(leaf)).objects
        for number, flag in zip(self.plan.variables, self.values, strict=True):
            if number >= len(objects):
                break  # what a partial stores comes last, and does not reach `fwd`
            variable = objects[number]
            before = variable._metadata
            variable.set_metadata(perturbed=flag)
            self.marked.append((variable, before, variable._metadata))
        seen = list(args)
        for i in diff:
            leaves, treedef = jax.tree.flatten(args[i], is_leaf=is_object)
            places = [self.plan.leaf_arrays.get(leaf) for leaf in self.plan.arguments[0][i].leaves]
            pairs = zip(leaves, places, strict=True)
            seen[i] = treedef.unflatten([x if n is None else self.arrays[n] for x, n in pairs])
        return seen

    def unmark(self) -> None:
        """Takes the marks away, and leaves what `fwd` changed."""
        for variable, before, marked in self.marked:
            now = variable._metadata
            if now is not marked:
                given = {**now.given, "perturbed": before.get("perturbed")}
                before = Metadata.of({k: x for k, x in given.items() if k != "perturbed" or k in before})
            set_metadata_past_checks(variable, before)
