"""`vmap`: a function mapped over an axis of its arguments; Variables are mapped or shared by all batch elements."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from liftnn import errors
from liftnn._src.lifting.configure import keeps_signature
from liftnn._src.lifting.contract import Plan, PureFunction, Purified, Result
from liftnn._src.lifting.lift import Lifted, LiftOptions
from liftnn._src.mapping.axis_errors import (
    check_axes,
    check_in_axes,
    find_bad_input,
    find_bad_output,
    find_mixed_shardings,
)
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
from liftnn._src.publish import publish
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
    """Vectorize a function over an axis of its arguments, as `jax.vmap`; arguments and outputs may contain modules.

    A Variable with an axis is mapped: each batch element sees one slice, and the values that batch elements write are
    stacked along that axis. A Variable with None is shared: all batch elements see the same value, and they must all
    write the same value, unless `reduce_writes` has a reduction for it.

    Args:
      f: A function, a bound method or a module. The module of a bound method is argument 0; if `in_axes` is a single
        int, or a tuple without an entry for it, the module is shared by all batch elements.
      in_axes: The axis of each argument: an int, None (shared) or, for a module, `StateAxes`; a tree prefix of the
        positional arguments. A keyword argument has the axis of its position, or axis 0 if `in_axes` has no entry for
        it. The default is 0.
      out_axes: The axes of the output: a tree prefix like `in_axes`. A module that was an argument keeps its own axes.
        The default is 0.
      axis_name: The name of the mapped axis for collectives such as `jax.lax.pmean`. The default, None, means no name.
      axis_size: The size of the mapped axis. The default, None, infers it from the mapped arguments.
      spmd_axis_name: The mesh axes over which the mapped axis is sharded. The default, None, means none.
      sum_match: As in `jax.vmap`. The default is False.
      split_rngs: Whether each batch element draws from its own keys of a shared `Rngs`. The default is True. If False,
        all batch elements draw the same numbers.
      reduce_writes: Reductions of the values that batch elements write to shared Variables, or return in Variables
        without an axis: a mapping from filters to functions of an array and a keyword `axis`, such as
        `{liftnn.BatchStat: jnp.mean}`. The first match is used. Random streams are not reduced. The default, None,
        means no reductions.
      transform_metadata: The name of the mapped axis in the metadata of Variables: `{liftnn.PARTITION_NAME: name}`,
        with further keys for other metadata entries. Inside the function, the metadata of a mapped Variable is without
        the axis: its `remove_axis_hooks` run, and `sharding` loses the name. Afterwards, `add_axis_hooks` and the name
        are applied to Variables that are new or have new metadata; other metadata are restored. As in Flax, a Variable
        that declares no sharding does not get the name, so it stays replicated over such a mesh axis; to shard it,
        declare `(None,)` for it, such as `bias_metadata={"sharding": (None,)}`. The default, None, leaves metadata
        unchanged.

    Returns:
      The mapped function, with the signature of `f`.

    Raises:
      AliasingError: When called, if a Variable is passed with two different axes, or if one with an axis is used
        through a module without one.
      ArgumentError: When called, if `in_axes`, `out_axes` or `transform_metadata` does not match the arguments or the
        output.
      ArgumentTypeError: If `in_axes` or `out_axes` contains an object that is not an axis, or `reduce_writes` one that
        is not a function; when called, if `transform_metadata` is not a mapping.
      ShardingError: When called, if mapped axes are sharded over different explicit axes of the mesh.
      SharedWriteError: When called, if batch elements write different values to a shared Variable.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> init = liftnn.vmap(lambda key: liftnn.Linear(2, 3, rngs=liftnn.Rngs(key)))
      >>> ensemble = init(jax.random.split(jax.random.key(0), 5))
      >>> liftnn.vmap(lambda model, x: model(x), in_axes=(0, None))(ensemble, jnp.ones(2)).shape
      (5, 3)
    """
    check_in_axes(in_axes)
    check_axes("out_axes", out_axes)
    options = {"axis_name": axis_name, "axis_size": axis_size, "spmd_axis_name": spmd_axis_name}
    options |= {"sum_match": True} if sum_match else {}
    map_options = MapOptions(out_axes, split_rngs, to_reductions(reduce_writes), transform_metadata, options)

    def bind(lifted: Vmapped[..., Any], plan: Plan, pure: Purified) -> PureFunction:
        return VmapCall(plan, pure, lifted._axes_of(plan), map_options)

    of_arrays = None
    if transform_metadata is None:
        of_arrays = functools.partial(jax.vmap, in_axes=in_axes, out_axes=out_axes, **options)
    return Vmapped(f, bind, LiftOptions("vmap", of_arrays=of_arrays), in_axes)


class Vmapped(Lifted[P, R]):
    """A function mapped by `vmap`.

    Args:
      f: The user's function.
      bind: Applies the transform; called with this object before the plan.
      options: The options of the transform.
      in_axes: The axes of the positional arguments.
    """

    def __init__(self, f: Callable[..., Any], bind: Any, options: LiftOptions, in_axes: Any):
        super().__init__((f,), bind, options._replace(n_positional=count_positional(in_axes)))
        self._in_axes = in_axes

    def _bind_to(self, plan: Plan, *pures: PureFunction) -> Any:
        return self._bind(self, plan, *pures)

    def _axes_of_positional(self, plan: Plan) -> Any:
        """Return a tree prefix of the positional arguments, including the module of a bound method."""
        return positional_prefix(plan, self._in_axes, bool(self._leading), None)

    def _axes_of(self, plan: Plan) -> list[Prefix]:
        """Return the axis of each leaf of the arguments; None for arguments stored in a partial."""
        return leaf_prefixes(plan, self._in_axes, bool(self._leading), 0, None)


class MapOptions(NamedTuple):
    """The options of `vmap` or `pmap` that do not depend on the arguments.

    Args:
      out_axes: The axes of the output.
      split_rngs: Whether each batch element has its own random keys.
      reductions: The reductions of writes to shared Variables: pairs of predicate and reduction.
      transform_metadata: The name of the mapped axis in metadata.
      options: Options of `jax.vmap`.
      transform: The name of the transform, for messages.
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
      options: The options of the map.
    """

    def __init__(self, plan: Plan, pure: Purified, axes: list[Prefix], options: MapOptions):
        self.options = options
        super().__init__(plan, pure, list(map(self.adapt, axes)), options.out_axes, self.adapt(None))

    def adapt(self, prefix: Prefix) -> Prefix:
        """Add the reductions of leaves without an axis to a prefix."""
        return with_reductions(prefix, self.options.reductions)

    def call(self, leaves: Sequence[Any], prefixes: list[Prefix]) -> Result:
        """Call the function for one batch element."""

        def place(result: Result) -> Mapping[Any, Prefix]:
            return dict(zip(result.slots, self.place(result, prefixes), strict=True))

        return self.pure(leaves, adapt_metadata(self.plan, self.options.transform_metadata, prefixes, place))

    def run(
        self,
        function: Callable[..., Any],
        leaves: Sequence[Any],
        prefixes: list[Prefix],
        choices: list[Prefix],
    ) -> Any:
        """Map a function of the leaves."""
        leaves, axes, size = self._split_keys(leaves, prefixes)
        if all(axis is None for axis in axes) and self.options.options["axis_size"] is None:
            raise errors.ArgumentError(
                f"{self.options.transform} has nothing to map: no argument with an axis contains an array.",
                "Set an axis in `in_axes` for an argument with arrays, or pass `axis_size`.",
            )
        groups, layout = self.map(function, leaves, axes, output_axes(choices), size)
        return list(map(reduce_group, groups, choices)), layout

    def map(
        self, function: Callable[..., Any], leaves: list[Any], axes: list[Prefix], out_axes: Any, size: Any
    ) -> Any:
        """Map a function of the leaves with JAX; `size` is the size of the mapped axis, or None if it is unknown."""
        return jax.vmap(function, in_axes=(axes,), out_axes=(out_axes, None), **self.options.options)(leaves)

    def _split_keys(
        self, leaves: Sequence[Any], prefixes: list[Prefix]
    ) -> tuple[list[Any], list[Prefix], Any]:
        """Return leaves and axes with random keys for each batch element, and the size of the mapped axis."""
        axes = input_axes(prefixes)
        size = self.options.options["axis_size"]
        size = axis_size_of(leaves, axes) if size is None else size
        if not self.options.split_rngs:
            return list(leaves), axes, size
        return (*split_shared_keys(self.plan, leaves, axes, size), size)

    def find_problem(
        self, leaves: Sequence[Any], prefixes: list[Prefix], called: bool
    ) -> errors.LiftError | None:
        """Return the error that names the path of a wrong axis; None if there is none."""
        size, transform = self.options.options["axis_size"], self.options.transform
        wrong = find_bad_input(self.plan, leaves, input_axes(prefixes), size, transform)
        wrong = wrong or find_mixed_shardings(self.plan, leaves, input_axes(prefixes))
        if wrong is not None or not called:
            return wrong
        split, axes, _ = self._split_keys(leaves, prefixes)

        def trace(take: Callable[[Result, Sequence[Prefix]], Any], _: Any) -> None:
            def once(leaves: Sequence[Any]) -> Any:
                result = self.call(leaves, prefixes)
                return take(result, output_axes(self.place(result, prefixes)))

            jax.eval_shape(jax.vmap(once, in_axes=(axes,), out_axes=None, **self.options.options), split)

        return find_bad_output(trace, self.plan, transform)


publish(vmap)
