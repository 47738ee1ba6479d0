"""`vmap`: one axis of the arguments becomes many lanes; Variables are mapped, or shared by all lanes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from liftnn import errors
from liftnn._src.lifting.configure import keeps_signature
from liftnn._src.lifting.contract import Plan, PureFunction, Purified, Result
from liftnn._src.lifting.lift import Lifted, Options
from liftnn._src.mapping.axis_errors import check_axes, find_bad_input, find_bad_output
from liftnn._src.mapping.axis_metadata import adapt_metadata
from liftnn._src.mapping.batch_keys import axis_size_of, split_shared_keys
from liftnn._src.mapping.mapped import MappedCall
from liftnn._src.mapping.reductions import (
    input_axes,
    output_axes,
    reduce_group,
    to_reductions,
    with_reductions,
)
from liftnn._src.prefixes.prefix import Prefix, count_positional, leaf_prefixes, positional_prefix
from liftnn._src.type_variables import P, R


@keeps_signature
def vmap(
    f: Callable[..., Any],
    /,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_name: Hashable | None = None,
    axis_size: int | None = None,
    spmd_axis_name: Hashable | tuple[Hashable, ...] | None = None,
    sum_match: bool = False,
    *,
    split_rngs: bool = True,
    reduce_writes: Mapping[Any, Callable[..., Any]] | None = None,
    transform_metadata: Mapping[str, Any] | None = None,
) -> Lifted[..., Any]:
    """Maps a function over an axis of its arguments, as `jax.vmap`; modules may be among arguments and results.

    A Variable with an axis is mapped: each lane sees a slice, and what the lanes write is stacked along that axis.
    A Variable with None is shared: all lanes see the same value, and what they write must be the same in each, unless
    `reduce_writes` says how it is reduced.

    Args:
      f: A function, a bound method or a module. A method's module is argument 0; where `in_axes` is a single int, or
        a tuple without an entry for it, that module is shared by all lanes.
      in_axes: The axis of each argument, an int, None (shared) or, for a module, `StateAxes`; a tree prefix of the
        positional arguments. A keyword argument has the axis of its position, or else axis 0. The default is 0.
      out_axes: The same for the output. A module that was an argument keeps its own axes. The default is 0.
      axis_name: A name for collectives such as `jax.lax.pmean`. The default, None, means no name.
      axis_size: The number of lanes. The default, None, takes it from the mapped arguments.
      spmd_axis_name: Mesh axes that the mapped axis is sharded over. The default, None, means none.
      sum_match: As in JAX. The default is False.
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
    given |= {"sum_match": True} if sum_match else {}
    map_options = MapOptions(out_axes, split_rngs, to_reductions(reduce_writes), transform_metadata, given)
    lifted: Vmapped[..., Any]

    def bind(plan: Plan, pure: Purified) -> PureFunction:
        return VmapCall(plan, pure, lifted._axes_of(plan), map_options)

    of_arrays = None
    if transform_metadata is None:
        of_arrays = functools.partial(jax.vmap, in_axes=in_axes, out_axes=out_axes, **given)
    lifted = Vmapped((f,), bind, Options("vmap", of_arrays=of_arrays), in_axes)
    return lifted


class Vmapped(Lifted[P, R]):
    """A function mapped by `vmap`.

    Args:
      functions: The user's function.
      bind: Applies the transform.
      options: How the arguments are handled.
      in_axes: The axes of the positional arguments.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]], bind: Any, options: Options, in_axes: Any):
        super().__init__(functions, bind, options._replace(n_positional=count_positional(in_axes)))
        self._in_axes = in_axes

    def _axes_of_positional(self, plan: Plan) -> Any:
        """A tree prefix of the positional arguments, the module of a method among them."""
        return positional_prefix(plan, self._in_axes, bool(self._leading), None)

    def _axes_of(self, plan: Plan) -> list[Prefix]:
        """The axis of each leaf of the arguments; of what a partial stores, None."""
        return leaf_prefixes(plan, self._in_axes, bool(self._leading), 0, None)


class MapOptions(NamedTuple):
    """How `vmap` or `pmap` maps a function, whatever its arguments.

    Args:
      out_axes: The axes of the output.
      split_rngs: Whether batch elements get random keys of their own.
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


class VmapCall(MappedCall):
    """A pure function mapped by `jax.vmap`.

    Args:
      plan: The arguments.
      pure: The pure function.
      axes: The axis of each leaf of the arguments.
      options: How it is mapped.
    """

    def __init__(self, plan: Plan, pure: Purified, axes: list[Prefix], options: MapOptions):
        self.options = options
        super().__init__(plan, pure, list(map(self.adapt, axes)), options.out_axes)

    def adapt(self, prefix: Prefix) -> Prefix:
        """A prefix with the reductions of what has no axis."""
        return with_reductions(prefix, self.options.reductions)

    def call(self, leaves: Sequence[Any], given: list[Prefix]) -> Result:
        """Calls the function for one batch element."""

        def place(result: Result) -> Mapping[Any, Prefix]:
            return dict(zip(result.slots, self.place(result, given), strict=True))

        return self.pure(leaves, adapt_metadata(self.plan, self.options.transform_metadata, given, place))

    def run(
        self, function: Callable[..., Any], leaves: Sequence[Any], given: list[Prefix], choices: list[Prefix]
    ) -> Any:
        """Maps a function of the leaves."""
        leaves, axes, size = self._split_keys(leaves, given)
        if all(axis is None for axis in axes) and self.options.options["axis_size"] is None:
            raise errors.ArgumentError(
                f"{self.options.transform} has nothing to map: no argument with an axis has an array in it.",
                "Give an argument an axis in `in_axes`, or pass `axis_size`.",
            )
        groups, layout = self.map(function, leaves, axes, output_axes(choices), size)
        return list(map(reduce_group, groups, choices)), layout

    def map(
        self, function: Callable[..., Any], leaves: list[Any], axes: list[Prefix], out_axes: Any, size: Any
    ) -> Any:
        """Maps a function of the leaves with JAX; `size` is that of the mapped axis, None if there is none."""
        return jax.vmap(function, in_axes=(axes,), out_axes=(out_axes, None), **self.options.options)(leaves)

    def _split_keys(self, leaves: Sequence[Any], given: list[Prefix]) -> tuple[list[Any], list[Prefix], Any]:
        """Leaves and axes, with random keys for each batch element; and the size of the mapped axis."""
        axes = input_axes(given)
        size = self.options.options["axis_size"] or axis_size_of(leaves, axes)
        if not self.options.split_rngs:
            return list(leaves), axes, size
        return (*split_shared_keys(self.plan, leaves, axes, size), size)

    def find_problem(
        self, leaves: Sequence[Any], given: list[Prefix], called: bool
    ) -> errors.LiftError | None:
        """What is wrong with the axes, by path; None if that cannot be said."""
        size, transform = self.options.options["axis_size"], self.options.transform
        wrong = find_bad_input(self.plan, leaves, input_axes(given), size, transform)
        if wrong is not None or not called:
            return wrong
        split, axes, _ = self._split_keys(leaves, given)

        def trace(take: Callable[[Result, Sequence[Prefix]], Any]) -> None:
            def once(leaves: Sequence[Any]) -> Any:
                result = self.call(leaves, given)
                return take(result, output_axes(self.place(result, given)))

            jax.eval_shape(jax.vmap(once, in_axes=(axes,), out_axes=None, **self.options.options), split)

        return find_bad_output(trace, self.plan, transform)
