"""The output of a call as something to differentiate: its arrays, and the Variables of the modules in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from liftnn import errors
from liftnn.derivatives.picked import Picked
from liftnn.derivatives.selection import ArgNums, DiffState, Selection, select_arguments
from liftnn.filters import Filter
from liftnn.graph.description import ARRAY, Description
from liftnn.graph.merge import Change
from liftnn.lifting.after import full_specs
from liftnn.lifting.lift import Lifted, Options
from liftnn.lifting.pure import PureCall
from liftnn.lifting.result import Plan, Result
from liftnn.trees import Path, format_path, is_array


class Outputs(Plan):
    """What a call returned, described as if it were the arguments of another call.

    Args:
      plan: The arguments.
      change: What the call returned, made and changed.
      has_aux: Whether the output is a pair, of which only the first is meant.
    """

    def __init__(self, plan: Plan, change: Change, has_aux: bool = False):
        self.has_aux = has_aux
        specs = full_specs(plan, change)
        fresh = itertools.count()
        self._sources = [(True, next(fresh)) for e in change.edges if e is ARRAY]
        """For each array whether it stands in the result, and where: there, or among the arguments."""
        own = {number: [(False, i) for i in places] for number, places in plan.node_arrays.items()}
        for number, spec in (*change.changed, *enumerate(change.new, change.known)):
            places = {key: i for i, key in plan.arrays_by_key(number)} if number < change.known else {}
            own[number] = [
                (True, next(fresh)) if e is ARRAY else (False, places[k])
                for k, e, now in zip(spec.keys, spec.edges, specs[number].edges, strict=True)
                if now is ARRAY
            ]
        self._sources += [source for number in range(len(specs)) for source in own.get(number, ())]
        frozen = [n for n in plan.graph.frozen if n not in change.frozen]
        args = change.treedef if has_aux else jax.tree_util.treedef_tuple([change.treedef])
        treedef = jax.tree_util.treedef_tuple([args, jax.tree.structure({})])
        paths = change.paths.below(0) if has_aux else change.paths.below(0, 0)
        super().__init__(Description(treedef, change.edges, tuple(specs), (*frozen, *change.frozen), paths))

    def name(self, path: Path) -> str:
        """A path in words, such as `the output.encoder.w`."""
        return format_path(path[1 if self.has_aux else 2 :], "the output")

    def contents(
        self, result: Result, values: Sequence[Any], arrays: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        """The values and arrays after a call: what this plan describes.

        Args:
          result: What it returned.
          values: The values that it was given.
          arrays: The arrays that it was given.

        Returns:
          The values of the known and the new Variables, and the arrays.
        """
        after = [v if x is None else x for v, x in zip(values, result.updates, strict=True)]
        found = [result.arrays[i] if is_result else arrays[i] for is_result, i in self._sources]
        return [*after, *result.new], found

    def scatter(self, picked: Picked, diff: Sequence[Any], result: Result) -> Result:
        """A result with other values where something was picked: the inverse of `contents`.

        Args:
          picked: What was picked of this plan.
          diff: The values by position; what belongs to an argument that was returned as it was is passed over.
          result: The result.

        Returns:
          The new result.
        """
        arrays, new, updates = list(result.arrays), list(result.new), list(result.updates)
        for (is_value, at), x in zip(picked.parts, diff, strict=True):
            if not is_value:
                is_result, place = self._sources[at]
                if is_result:
                    arrays[place] = x
            elif at >= len(updates):
                new[at - len(updates)] = x
            elif updates[at] is not None:
                updates[at] = x
        return result._replace(arrays=arrays, new=new, updates=updates)

    def pick(self, values: Sequence[Any], arrays: Sequence[Any]) -> Picked:
        """The arrays and the Variables of floating point dtype in the output.

        Args:
          values: The values after the call.
          arrays: The arrays after the call.

        Returns:
          What is differentiated.
        """
        return Selection(self, [DiffState(0, ...)], "none").pick(values, arrays)


class Differentiable:
    """A pure call as a function of what is differentiated, as JAX's transforms with `has_aux=True` take it.

    Args:
      pure: The pure call.
      picked: What is differentiated.
      values: The values of the Variables.
      arrays: The bare arrays.
      has_aux: Whether the output is a pair, of which only the first is differentiated.
    """

    def __init__(
        self, pure: PureCall, picked: Picked, values: Sequence[Any], arrays: Sequence[Any], has_aux: bool
    ):
        self.pure = pure
        self.arguments = picked
        self.given = values, arrays
        self.has_aux = has_aux
        self.outputs = Picked(picked.plan)
        """What of the output is differentiated: known once the function has been called."""

    def __call__(self, diff: Sequence[Any]) -> tuple[list[Any], Result]:
        """The differentiated parts of the output, and the result."""
        given = self.arguments.put(diff, *self.given)
        result = self.pure(*given)
        after = Outputs(self.arguments.plan, result.change, self.has_aux)
        contents = after.contents(result, *given)
        self.outputs = after.pick(*contents)
        return self.outputs.take(*contents), result

    @property
    def primals(self) -> list[Any]:
        """What is differentiated."""
        return self.arguments.take(*self.given)


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

    def bind(plan: Plan, pure: PureCall) -> PureCall:
        selection = select_arguments(plan, argnums, wrt)

        def call(values: Sequence[Any], arrays: Sequence[Any]) -> Result:
            picked = selection.pick(values, arrays)
            made, result = run(Differentiable(pure, picked, values, arrays, has_aux))
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
    return "an array" if is_array(out) else f"a {type(out).__name__}"
