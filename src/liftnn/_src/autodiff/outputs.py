"""The output of a call as something to differentiate: its arrays, and the Variables of the modules in it."""

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
from liftnn._src.lifting.contract import Plan, PureFunction, Result, result_of
from liftnn._src.lifting.lift import Lifted, Options
from liftnn._src.trees import Path, an, format_path, is_array


class Outputs(Plan):
    """What a call returned, described as if it were the arguments of another call.

    Args:
      plan: The arguments.
      change: What the call returned, made and changed.
      has_aux: Whether the output is a pair, of which only the first is meant.
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
        """A path in words, such as `the output.encoder.w`."""
        return format_path(path[1 if self.has_aux else 2 :], "the output")

    def contents(self, result: Result, given: Mapping[Slot, Any]) -> list[Any]:
        """The dynamic leaves after a call: what this plan describes.

        Args:
          result: What the call returned.
          given: The dynamic leaves that it was given, by slot.

        Returns:
          The leaves, in the order of `slots`.
        """
        found = {**given, **result.by_slot}
        return [found[_in_result(slot)] for slot in self.slots]

    def scatter(self, picked: DiffLeaves, diff: Sequence[Any], result: Result) -> Result:
        """A result with other values where something was picked: the inverse of `contents`.

        Args:
          picked: What was picked of this plan.
          diff: The values by position; what belongs to an argument that was returned as it was is passed over.
          result: The result.

        Returns:
          The new result.
        """
        by_slot = result.by_slot
        placed = zip(map(_in_result, picked.positions), diff, strict=True)
        return result_of(result.change, {**by_slot, **{slot: x for slot, x in placed if slot in by_slot}})

    def pick(self, leaves: Sequence[Any]) -> DiffLeaves:
        """The arrays and the Variables of floating point dtype in the output.

        Args:
          leaves: The dynamic leaves after the call.

        Returns:
          What is differentiated.
        """
        return Selection(self, [DiffState(0, ...)], "none").pick(leaves)


def _in_result(slot: Slot) -> Slot:
    """The slot in a result of what is an argument here."""
    return Slot(OUTPUT, slot.key) if slot.node == ROOT else slot


class Differentiable:
    """A pure function as a function of what is differentiated, as JAX's transforms with `has_aux=True` take it.

    Args:
      pure: The pure function.
      picked: What is differentiated.
      leaves: The dynamic leaves.
      has_aux: Whether the output is a pair, of which only the first is differentiated.
    """

    def __init__(self, pure: PureFunction, picked: DiffLeaves, leaves: Sequence[Any], has_aux: bool):
        self.pure = pure
        self.arguments = picked
        self.leaves = leaves
        self.has_aux = has_aux
        self.outputs = DiffLeaves(picked.plan)
        """What of the output is differentiated: known once the function has been called."""

    def __call__(self, diff: Sequence[Any]) -> tuple[list[Any], Result]:
        """The differentiated parts of the output, and the result."""
        leaves, plan = self.arguments.put(diff, self.leaves), self.arguments.plan
        result = self.pure(leaves)
        after = Outputs(plan, result.change, self.has_aux)
        contents = after.contents(result, plan.by_slot(leaves))
        self.outputs = after.pick(contents)
        return self.outputs.take(contents), result

    @property
    def primals(self) -> list[Any]:
        """What is differentiated."""
        return self.arguments.take(self.leaves)


def differentiate(
    f: Callable[..., Any],
    name: str,
    primals: Sequence[Any],
    has_aux: bool,
    argnums: ArgNums | None,
    wrt: Filter,
    run: Callable[[Differentiable], tuple[Any, Result]],
) -> Any:
    """What `vjp` and `linearize` return: the output, a function made by `run`, and an auxiliary output if there is one.

    Args:
      f: The user's function.
      name: What messages call the transform.
      primals: The arguments.
      has_aux: Whether the output is a pair, of which only the first is differentiated.
      argnums: The differentiated arguments; None for all.
      wrt: Which Variables of a module.
      run: Gives that function, and the result of the call.

    Returns:
      The pair or triple.
    """

    def bind(plan: Plan, pure: PureFunction) -> PureFunction:
        selection = select_arguments(plan, argnums, wrt)

        def call(leaves: Sequence[Any]) -> Result:
            made, result = run(Differentiable(pure, selection.pick(leaves), leaves, has_aux))
            return result._replace(extra=made)

        return call

    def finish(out: Any, made: Any) -> Any:
        return (out[0], made, out[1]) if has_aux else (out, made)

    return Lifted((f,), bind, Options(name, finish, check=check_pair if has_aux else None))(*primals)


def options_error(name: str, options: Mapping[str, Any]) -> errors.ArgumentError:
    """The error for options that only JAX's transform knows, in a call with modules."""
    return errors.ArgumentError(
        f"liftnn.{name} has no option {', '.join(map(repr, options))} for functions of modules.",
        "Leave it out.",
    )


def check_pair(out: Any) -> Any:
    """Refuses the output of a function with `has_aux` that is no pair."""
    if not isinstance(out, tuple) or len(out) != 2:
        raise errors.ArgumentTypeError(
            f"With has_aux=True the function must return a pair (output, auxiliary), not {in_words(out)}.",
            "Return a tuple of two, or leave has_aux out.",
        )
    return out


def in_words(out: Any) -> str:
    """What a function returned where a tuple was expected."""
    if isinstance(out, tuple):
        return f"a tuple of {len(out)}"
    return "an array" if is_array(out) else f"{an(type(out))}"
