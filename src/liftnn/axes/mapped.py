"""A pure call mapped over an axis of its arguments, whoever runs the lanes: what `vmap` and `pmap` have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from liftnn import errors
from liftnn.axes.axis_metadata import adapt_metadata
from liftnn.axes.lanes import count_lanes, split_shared_keys
from liftnn.axes.prefix import (
    Placement,
    Prefix,
    Spread,
    array_prefixes,
    distinct,
    group,
    place_result,
    prefix_leaves,
    spread_arguments,
    ungroup,
    value_prefixes,
)
from liftnn.axes.reductions import input_axes, output_axes, reduce_group, with_reductions
from liftnn.axes.wrong_axes import find_bad_input, find_bad_output
from liftnn.lifting.pure import Purified
from liftnn.lifting.result import Plan, Result


class How(NamedTuple):
    """How a function is mapped, whatever its arguments.

    Args:
      out_axes: The axes of the output.
      split_rngs: Whether lanes get keys of their own.
      reductions: How writes to shared Variables are reduced: pairs of predicate and reduction.
      transform_metadata: What metadata calls the mapped axis.
      options: Options of `jax.vmap`.
      transform: What messages call the transform.
    """

    out_axes: Any
    split_rngs: bool
    reductions: list[Any]
    transform_metadata: Mapping[str, Any] | None
    options: dict[str, Any]
    transform: str = "vmap"


class Mapped:
    """A pure call mapped over its arguments.

    Args:
      plan: The arguments.
      pure: The pure call.
      axes: The axis of each leaf of the arguments.
      how: How it is mapped.
    """

    def __init__(self, plan: Plan, pure: Purified, axes: list[Prefix], how: How):
        self.plan = plan
        self.pure = pure
        self.how = how
        self.axes = list(map(self._reduced, axes))
        self.spread: Spread = spread_arguments(plan, self.axes)
        self.choices = distinct([*self.axes, *map(self._reduced, prefix_leaves(how.out_axes))])

    def __call__(self, values: Sequence[Any], arrays: Sequence[Any]) -> Result:
        """Calls the function for all lanes."""
        value_axes = value_prefixes(self.plan, self.spread, values)
        array_axes = array_prefixes(self.plan, self.spread, self.axes, arrays)
        in_axes = (input_axes(value_axes), array_axes)
        values, arrays, size = list(values), list(arrays), self.how.options["axis_size"]
        lanes = size or count_lanes((*values, *arrays), (*in_axes[0], *in_axes[1]))
        if self.how.split_rngs:
            values, own_axes = split_shared_keys(self.plan, values, in_axes[0], lanes)
            in_axes = (own_axes, array_axes)
        if all(a is None for axes in in_axes for a in axes) and size is None:
            raise errors.ArgumentError(
                f"{self.how.transform} has nothing to map: no argument with an axis has an array in it.",
                "Give an argument an axis in `in_axes`, or pass `axis_size`.",
            )
        reached: list[str] = []  # each time that the function was called, and that it returned

        def grouped(values: Sequence[Any], arrays: Sequence[Any]) -> Any:
            reached.append("function")
            result = self._call(values, arrays, value_axes)
            groups = group(result, self._place(result, value_axes), self.choices)
            reached.append("output")
            return groups

        try:
            groups, layout = self._run(grouped, in_axes, values, arrays, lanes)
        except (TypeError, ValueError) as error:
            if reached and reached[-1] == "function":  # its own error
                raise
            problem = self._find_problem(values, arrays, in_axes, value_axes, called=bool(reached))
            if problem is None:
                raise
            raise problem from error
        return ungroup(list(map(reduce_group, groups, self.choices)), layout)

    def _run(
        self,
        function: Callable[..., Any],
        in_axes: tuple[list[Prefix], list[Prefix]],
        values: list[Any],
        arrays: list[Any],
        lanes: int | None,
    ) -> Any:
        """Runs all lanes: a function of values and arrays, which gives a list for each of `choices`, and a layout."""
        out_axes = (output_axes(self.choices), None)
        return jax.vmap(function, in_axes=in_axes, out_axes=out_axes, **self.how.options)(values, arrays)

    def _call(self, values: Sequence[Any], arrays: Sequence[Any], value_axes: list[Prefix]) -> Result:
        """One lane."""
        around = adapt_metadata(
            self.plan, self.how.transform_metadata, value_axes, lambda r: self._place(r, value_axes).new
        )
        return self.pure(values, arrays, around)

    def _place(self, result: Result, value_axes: list[Prefix]) -> Placement:
        axes = self.how.out_axes
        return place_result(
            self.plan, self.spread, value_axes, result, axes, settled=True, adapt=self._reduced
        )

    def _reduced(self, prefix: Prefix) -> Prefix:
        """A prefix with the reductions of what has no axis."""
        return with_reductions(prefix, self.how.reductions)

    def _find_problem(
        self,
        values: Sequence[Any],
        arrays: Sequence[Any],
        in_axes: tuple[list[Prefix], list[Prefix]],
        value_axes: list[Prefix],
        called: bool,
    ) -> errors.LiftError | None:
        """What is wrong with the axes, by path; None if that cannot be said."""
        wrong = find_bad_input(
            self.plan, values, arrays, in_axes, self.how.options["axis_size"], self.how.transform
        )
        if wrong is not None or not called:
            return wrong

        def trace(take: Callable[[Result, Placement], Any]) -> None:
            def once(values: Sequence[Any], arrays: Sequence[Any]) -> Any:
                result = self._call(values, arrays, value_axes)
                return take(result, Placement(*map(output_axes, self._place(result, value_axes))))

            mapped = jax.vmap(once, in_axes=in_axes, out_axes=None, **self.how.options)
            jax.eval_shape(mapped, values, arrays)

        return find_bad_output(trace, self.plan, self.how.transform)
