"""`vmap`: one axis of the arguments becomes many lanes; Variables are mapped, or shared by all lanes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax

from liftnn.axes.leaf_prefixes import count_positional, leaf_prefixes, positional_prefix
from liftnn.axes.mapped import How, Mapped
from liftnn.axes.prefix import Prefix
from liftnn.axes.reductions import to_reductions
from liftnn.axes.wrong_axes import check_axes
from liftnn.lifting.lift import Lifted, Options
from liftnn.lifting.pure import PureCall, Purified
from liftnn.lifting.result import Plan
from liftnn.transforms.configure import keeps_signature
from liftnn.variables.type_variables import P, R


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
    how = How(out_axes, split_rngs, to_reductions(reduce_writes), transform_metadata, given)
    lifted: Vmapped[..., Any]

    def bind(plan: Plan, pure: Purified) -> PureCall:
        return Mapped(plan, pure, lifted.axes_of(plan), how)

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

    def axes_of_positional(self, plan: Plan) -> Any:
        """A tree prefix of the positional arguments, the module of a method among them."""
        return positional_prefix(plan, self._in_axes, bool(self.leading), None)

    def axes_of(self, plan: Plan) -> list[Prefix]:
        """The axis of each leaf of the arguments; of what a partial stores, None."""
        return leaf_prefixes(plan, self._in_axes, bool(self.leading), 0, None)
