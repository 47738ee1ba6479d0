"""`vmap`: one axis of the arguments becomes many lanes; Variables are mapped, or shared by all lanes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from liftnn import errors
from liftnn.filters import Filter
from liftnn.lifting.configure import configurable
from liftnn.lifting.leaf_prefixes import leaf_prefixes, positional_prefix
from liftnn.lifting.lift import Lifted, Options
from liftnn.lifting.prefix import (
    Placement,
    Prefix,
    Spread,
    array_prefixes,
    distinct,
    group,
    place_result,
    spread_arguments,
    ungroup,
    value_prefixes,
)
from liftnn.lifting.pure import PureCall, Purified
from liftnn.lifting.result import Plan, Result
from liftnn.transforms.axes import check_axes, find_bad_input, find_bad_output
from liftnn.transforms.axis_metadata import adapt_metadata
from liftnn.transforms.lanes import count_lanes, split_shared_keys
from liftnn.transforms.reductions import input_axes, output_axes, reduce_group, to_reductions, with_reductions


@configurable
def vmap(
    f: Callable[..., Any],
    /,
    *,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_name: Hashable | None = None,
    axis_size: int | None = None,
    spmd_axis_name: Hashable | tuple[Hashable, ...] | None = None,
    split_rngs: bool = True,
    reduce_writes: Mapping[Filter, Callable[..., Any]] | None = None,
    transform_metadata: Mapping[str, Any] | None = None,
) -> Lifted:
    """Maps a function over an axis of its arguments, as `jax.vmap`; modules may be among arguments and results.

    A Variable with an axis is mapped: each lane sees a slice, and what the lanes write is stacked along that axis.
    A Variable with None is shared: all lanes see the same value, and what they write must be the same in each, unless
    `reduce_writes` says how it is reduced.

    Args:
      f: A function, a bound method or a module. A method's module is argument 0; where `in_axes` is a single int, or
        a tuple without an entry for it, that module is shared by all lanes.
      in_axes: The axis of each argument, an int, None (shared) or, for a module, `StateAxes`; a tree prefix of the
        positional arguments. Keyword arguments are mapped over axis 0. The default is 0.
      out_axes: The same for the output. A module that was an argument keeps its own axes. The default is 0.
      axis_name: A name for collectives such as `jax.lax.pmean`. The default, None, means no name.
      axis_size: The number of lanes. The default, None, takes it from the mapped arguments.
      spmd_axis_name: Mesh axes that the mapped axis is sharded over. The default, None, means none.
      split_rngs: Whether each lane of a shared `Rngs` gets keys of its own. The default is True; if False all lanes
        draw the same numbers.
      reduce_writes: How values that lanes write to shared Variables, or return in Variables without an axis, are
        reduced: a mapping of filter to a function of an array and `axis`, such as `{liftnn.BatchStat: jnp.mean}`; the
        first match wins. Random streams are not reduced. The default, None, reduces nothing.
      transform_metadata: What metadata calls the mapped axis: its name under `"partition_name"`, other entries' word
        for it under theirs. Inside, a mapped Variable has its metadata without the axis: `remove_axis_hooks` run, and
        `sharding` loses the name; `add_axis_hooks` and the name are for what is made inside. Metadata that the
        function leaves alone comes out as it was. The default, None, adapts no metadata.

    Returns:
      The mapped function.

    Raises:
      AliasingError: When called, if a Variable is reached with two different axes.
      ArgumentError: When called, if `in_axes` or `out_axes` does not fit, or `transform_metadata` a Variable.
      ArgumentTypeError: If there is something else than an axis in `in_axes` or `out_axes`, or than a function in
        `reduce_writes`; when called, if `transform_metadata` is no mapping.
      SharedWriteError: When called, if lanes write different values to a shared Variable.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> init = liftnn.vmap(lambda key: liftnn.Linear(2, 3, rngs=liftnn.Rngs(key)))
      >>> ensemble = init(jax.random.split(jax.random.key(0), 5))
      >>> liftnn.vmap(lambda model, x: model(x), in_axes=(0, None))(ensemble, jnp.ones(2)).shape
      (5, 3)
    """
    check_axes("in_axes", in_axes)
    check_axes("out_axes", out_axes)
    given = {"axis_name": axis_name, "axis_size": axis_size, "spmd_axis_name": spmd_axis_name}
    how = _How(out_axes, split_rngs, to_reductions(reduce_writes), transform_metadata, given)
    lifted: Vmapped

    def bind(plan: Plan, pure: Purified) -> PureCall:
        return _Bound(plan, pure, lifted.axes_of(plan), how)

    lifted = Vmapped((f,), bind, Options("vmap"), in_axes)
    return lifted


class Vmapped(Lifted):
    """A function mapped by `vmap`.

    Args:
      functions: The user's function.
      bind: Applies the transform.
      options: How the arguments are handled.
      in_axes: The axes of the positional arguments.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]], bind: Any, options: Options, in_axes: Any):
        super().__init__(functions, bind, options)
        self._in_axes = in_axes

    def axes_of_positional(self, plan: Plan) -> Any:
        """A tree prefix of the positional arguments, the module of a method among them."""
        return positional_prefix(plan, self._in_axes, bool(self._first), None)

    def axes_of(self, plan: Plan) -> list[Prefix]:
        """The axis of each leaf of the arguments; of what a partial stores, None."""
        return leaf_prefixes(plan, self._in_axes, bool(self._first), 0, None)


class _How(NamedTuple):
    """How a function is mapped, whatever its arguments.

    Args:
      out_axes: The axes of the output.
      split_rngs: Whether lanes get keys of their own.
      reductions: How writes to shared Variables are reduced: pairs of predicate and reduction.
      transform_metadata: What metadata calls the mapped axis.
      options: Options of `jax.vmap`.
    """

    out_axes: Any
    split_rngs: bool
    reductions: list[Any]
    transform_metadata: Mapping[str, Any] | None
    options: dict[str, Any]


class _Bound:
    """A pure call mapped over its arguments.

    Args:
      plan: The arguments.
      pure: The pure call.
      axes: The axis of each leaf of the arguments.
      how: How it is mapped.
    """

    def __init__(self, plan: Plan, pure: Purified, axes: list[Prefix], how: _How):
        self.plan = plan
        self.pure = pure
        self.axes = with_reductions(axes, how.reductions)
        self.out_axes = with_reductions(how.out_axes, how.reductions)
        self.how = how
        self.spread: Spread = spread_arguments(plan, self.axes)
        out_leaves = jax.tree.leaves(
            self.out_axes, is_leaf=lambda x: x is None or not isinstance(x, (tuple, list, dict))
        )
        self.choices = distinct([*self.axes, *out_leaves])

    def __call__(self, values: Sequence[Any], arrays: Sequence[Any]) -> Result:
        value_axes = value_prefixes(self.plan, self.spread, values)
        array_axes = array_prefixes(self.plan, self.spread, self.axes, arrays)
        in_axes = (input_axes(value_axes), array_axes)
        values, arrays, size = list(values), list(arrays), self.how.options["axis_size"]
        if self.how.split_rngs:
            lanes = size or count_lanes((*values, *arrays), (*in_axes[0], *in_axes[1]))
            values, own_axes = split_shared_keys(self.plan, values, in_axes[0], lanes)
            in_axes = (own_axes, array_axes)
        if all(a is None for axes in in_axes for a in axes) and size is None:
            raise errors.ArgumentError(
                "vmap has nothing to map: no argument with an axis has an array in it.",
                "Give an argument an axis in `in_axes`, or pass `axis_size`.",
            )
        reached: list[str] = []  # whether the function was called, and whether it returned

        def grouped(values: Sequence[Any], arrays: Sequence[Any]) -> Any:
            reached.append("function")
            result = self._call(values, arrays, value_axes)
            groups = group(result, self._place(result, value_axes), self.choices)
            reached.append("output")
            return groups

        try:
            out_axes = (output_axes(self.choices), None)
            mapped = jax.vmap(grouped, in_axes=in_axes, out_axes=out_axes, **self.how.options)
            groups, layout = mapped(values, arrays)
        except (TypeError, ValueError) as error:
            if reached == ["function"]:  # its own error
                raise
            problem = self._find_problem(values, arrays, in_axes, value_axes, called=bool(reached))
            if problem is None:
                raise
            raise problem from error
        return ungroup(list(map(reduce_group, groups, self.choices)), layout)

    def _call(self, values: Sequence[Any], arrays: Sequence[Any], value_axes: list[Prefix]) -> Result:
        """One lane."""
        around = adapt_metadata(
            self.plan, self.how.transform_metadata, value_axes, lambda r: self._place(r, value_axes).new
        )
        return self.pure(values, arrays, around)

    def _place(self, result: Result, value_axes: list[Prefix]) -> Placement:
        return place_result(self.plan, self.spread, value_axes, result, self.out_axes, settled=True)

    def _find_problem(
        self,
        values: Sequence[Any],
        arrays: Sequence[Any],
        in_axes: tuple[list[Prefix], list[Prefix]],
        value_axes: list[Prefix],
        called: bool,
    ) -> errors.LiftError | None:
        """What is wrong with the axes, by path; None if that cannot be said."""
        wrong = find_bad_input(self.plan, values, arrays, in_axes, self.how.options["axis_size"])
        if wrong is not None or not called:
            return wrong

        def trace(take: Callable[[Result, Placement], Any]) -> None:
            def once(values: Sequence[Any], arrays: Sequence[Any]) -> Any:
                result = self._call(values, arrays, value_axes)
                return take(result, Placement(*map(output_axes, self._place(result, value_axes))))

            mapped = jax.vmap(once, in_axes=in_axes, out_axes=None, **self.how.options)
            jax.eval_shape(mapped, values, arrays)

        return find_bad_output(trace, self.plan, self.spread)
