"""The differentiable output of a call: its arrays, and the Variables of its modules.

`Outputs` describes the output of a call as if it were the arguments of another one, so the same code selects leaves in
arguments and outputs, and reads tangents and cotangents of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn._src.autodiff.diff_leaves import DiffLeaves
from liftnn._src.autodiff.selection import ArgNums, DiffState, Selection, select_arguments
from liftnn._src.filters import Filter
from liftnn._src.graph.description import GraphSpec
from liftnn._src.graph.merge import GraphDelta
from liftnn._src.graph.slots import OUTPUT, ROOT, Slot
from liftnn._src.lifting.after import full_specs
from liftnn._src.lifting.configure import keep_items
from liftnn._src.lifting.contract import Plan, PureFunction, Result, result_of
from liftnn._src.lifting.lift import Lifted, LiftOptions
from liftnn._src.trees import Path, format_path


class Outputs(Plan):
    """The output of a call, described as if it were the arguments of another call.

    Args:
      plan: The arguments.
      change: The changes of the graph that the call made.
      has_aux: Whether the output is a pair, of which only the first element is described.
    """

    def __init__(self, plan: Plan, change: GraphDelta, has_aux: bool = False):
        self.has_aux = has_aux
        specs = full_specs(plan, change)
        frozen = [n for n in plan.graph.frozen if n not in change.frozen]
        args = change.treedef if has_aux else jax.tree_util.treedef_tuple([change.treedef])
        treedef = jax.tree_util.treedef_tuple([args, jax.tree.structure({})])
        paths = change.paths.below(0) if has_aux else change.paths.below(0, 0)
        super().__init__(GraphSpec(treedef, change.edges, tuple(specs), (*frozen, *change.frozen), paths))

    def path_name(self, path: Path) -> str:
        """Return a path as text, such as `the output.encoder.w`."""
        return format_path(path[1 if self.has_aux else 2 :], "the output")

    def contents(self, result: Result, inputs: Mapping[Slot, Any]) -> list[Any]:
        """Return the dynamic leaves of the output.

        Args:
          result: The result of the call.
          inputs: The dynamic leaves of the arguments, by slot.

        Returns:
          The leaves, in the order of `slots`.
        """
        found = {**inputs, **result.by_slot}
        return [found[_in_result(slot)] for slot in self.slots]

    def scatter(self, diff_leaves: DiffLeaves, diff: Sequence[Any], result: Result) -> Result:
        """Return a result with new values for the selected leaves: the inverse of `contents`.

        Args:
          diff_leaves: The selected leaves of this plan.
          diff: The values by position; values of arguments that were returned unchanged are skipped.
          result: The result.

        Returns:
          The new result.
        """
        by_slot = result.by_slot
        placed = zip(map(_in_result, diff_leaves.positions), diff, strict=True)
        return result_of(result.change, {**by_slot, **{slot: x for slot, x in placed if slot in by_slot}})

    def pick(self, leaves: Sequence[Any]) -> DiffLeaves:
        """Select the arrays and the floating point Variables of the output.

        Args:
          leaves: The dynamic leaves of the output.

        Returns:
          The selected leaves.
        """
        return Selection(self, [DiffState(0, ...)], "none").pick(leaves)


def _in_result(slot: Slot) -> Slot:
    """Return the slot in a result for a slot of this plan."""
    return Slot(OUTPUT, slot.key) if slot.node == ROOT else slot


class Differentiable:
    """A pure function as a function of its differentiated leaves, for JAX's transforms with `has_aux=True`.

    Args:
      pure: The pure function.
      diff_leaves: The differentiated leaves.
      leaves: All dynamic leaves.
      has_aux: Whether the output is a pair, of which only the first element is differentiated.
    """

    def __init__(self, pure: PureFunction, diff_leaves: DiffLeaves, leaves: Sequence[Any], has_aux: bool):
        self.pure = pure
        self.arguments = diff_leaves
        self.leaves = leaves
        self.has_aux = has_aux
        self.outputs = DiffLeaves(diff_leaves.plan)
        """The differentiated leaves of the output, known after the first call."""

    def __call__(self, diff: Sequence[Any]) -> tuple[list[Any], Result]:
        """Return the differentiated leaves of the output, and the whole result."""
        leaves, plan = self.arguments.put(diff, self.leaves), self.arguments.plan
        result = self.pure(leaves)
        after = Outputs(plan, result.change, self.has_aux)
        contents = after.contents(result, plan.by_slot(leaves))
        self.outputs = after.pick(contents)
        return self.outputs.take(contents), result

    @property
    def primals(self) -> list[Any]:
        """The values of the differentiated leaves."""
        return self.arguments.take(self.leaves)


def differentiate(
    f: Callable[..., Any],
    name: str,
    has_aux: bool,
    argnums: ArgNums | None,
    wrt: Filter,
    run: Callable[[Differentiable], tuple[Any, Result]],
) -> Lifted[..., Any]:
    """Implement `vjp` and `linearize`: the function returns output, derivative function, and auxiliary output if any.

    Args:
      f: The user's function.
      name: The name of the transform, for messages.
      has_aux: Whether the output is a pair, of which only the first element is differentiated.
      argnums: The differentiated arguments; None for all.
      wrt: A filter that selects the differentiated Variables of a module.
      run: Returns the derivative function and the result of the call.

    Returns:
      A function with the arguments of `f` that returns the pair or triple.
    """
    argnums = keep_items(argnums)

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        selection = select_arguments(plan, argnums, wrt)

        def call(leaves: Sequence[Any]) -> Result:
            derivative, result = run(Differentiable(pure, selection.pick(leaves), leaves, has_aux))
            return result._replace(extra=derivative)

        return call

    def finish(out: Any, derivative: Any) -> Any:
        return (out[0], derivative, out[1]) if has_aux else (out, derivative)

    return Lifted((f,), bind, LiftOptions(name, finish, has_aux=has_aux, as_methods=True))


def options_error(name: str, options: Mapping[str, Any]) -> errors.ArgumentError:
    """Return the error for options that only JAX's transform supports, in a call with modules."""
    return errors.ArgumentError(
        f"liftnn.{name} does not support {', '.join(map(repr, options))} in calls with modules.",
        "Leave it out, or call the function with arrays only, where JAX's own options apply.",
    )
