"""`shard_map`: every device runs the function on its shard of the arguments; Variables are sharded, or replicated."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from liftnn import errors
from liftnn.axes.lanes import lane_keys
from liftnn.axes.leaf_prefixes import count_positional, leaf_prefixes
from liftnn.axes.prefix import (
    Placement,
    Prefix,
    array_prefixes,
    distinct,
    group,
    place_result,
    prefix_leaves,
    spread_arguments,
    ungroup,
    value_prefixes,
)
from liftnn.axes.state_sharding import as_prefixes
from liftnn.axes.wrong_specs import Axes, axes_of_spec, check_specs, find_bad_spec, find_varying_output
from liftnn.lifting.lift import Lifted, Options
from liftnn.lifting.pure import PureCall
from liftnn.lifting.result import Plan, Result
from liftnn.transforms.configure import keeps_signature
from liftnn.variables.variable_types import RngKey

_WHOLE = PartitionSpec()


@keeps_signature
def shard_map(
    f: Callable[..., Any],
    /,
    *,
    out_specs: Any,
    in_specs: Any = None,
    mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh | None = None,
    axis_names: Collection[Any] = frozenset(),
    check_vma: bool = True,
    split_rngs: bool | Any = True,
) -> Lifted[..., Any]:
    """Runs a function on each device's shard of the arguments, as `jax.shard_map`; modules may be among them.

    A Variable keeps its spec: what the shards write to a sharded one are its new shards, and what they write to a
    replicated one must be the same in all.

    Args:
      f: A function, a bound method or a module. A method's module is argument 0; where `in_specs` has no entry for it,
        it is replicated.
      out_specs: The `PartitionSpec` of the output, a tree prefix of it. A module that was an argument keeps its own.
      in_specs: The `PartitionSpec` of each positional argument, a tree prefix of them; of a module, one for all it
        reaches, or `StateSharding` with specs. A keyword argument has the spec of its position if there is one, else
        it is replicated. The default, None, takes the specs
        from the arguments, which then must be placed on a mesh with explicit axes.
      mesh: The devices. The default, None, takes those of `jax.set_mesh`.
      axis_names: The mesh axes over which the function is split; over the others the compiler shards. The default,
        none, means all.
      check_vma: Whether to check that what is said to be replicated is. The default is True; if False, the value of one
        shard is taken.
      split_rngs: Along which mesh axes the shards draw random numbers of their own from a replicated `Rngs`: a name or
        several, True for all axes, False for none. The default is True. What is replicated along an axis must not
        depend on such numbers.

    Returns:
      The function of whole arrays.

    Raises:
      AliasingError: When called, if a Variable is reached with two different specs.
      ArgumentError: When called, if a spec fits neither mesh nor array, or an output that should be replicated is not.
      ArgumentTypeError: If there is something else than a `PartitionSpec` in the specs.
      SharedWriteError: When called, if shards write different values to a replicated Variable.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> def loss(model, x):
      ...   return jax.lax.pmean(model(x).mean(), "data")
      >>> sharded = liftnn.shard_map(loss, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P())
      >>> sharded(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), jnp.zeros((8, 2)))
      Array(0., dtype=float32)
    """
    own = {"mesh": mesh, "out_specs": out_specs, "axis_names": frozenset(axis_names), "check_vma": check_vma}
    of_arrays = functools.partial(
        jax.shard_map, **own, **({} if in_specs is None else {"in_specs": in_specs})
    )
    in_specs, out_specs = as_prefixes(in_specs), as_prefixes(out_specs)
    check_specs("in_specs", in_specs)
    check_specs("out_specs", out_specs)
    options = {"mesh": mesh, "axis_names": frozenset(axis_names), "check_vma": check_vma}
    lifted: Lifted[..., Any]

    def bind(plan: Plan, pure: PureCall) -> PureCall:
        specs = leaf_prefixes(
            plan, _WHOLE if in_specs is None else in_specs, bool(lifted.leading), _WHOLE, _WHOLE
        )
        return _Bound(plan, pure, specs, in_specs is None, out_specs, split_rngs, options)

    lifted = Lifted(
        (f,), bind, Options("shard_map", n_positional=count_positional(in_specs), of_arrays=of_arrays)
    )
    return lifted


class _Bound:
    """A pure call under `jax.shard_map`.

    Args:
      plan: The arguments.
      pure: The pure call.
      specs: The spec of each leaf of the arguments.
      inferred: Whether the arrays' own specs are taken instead.
      out_specs: The specs of the output.
      split_rngs: Along which axes shards draw numbers of their own.
      options: Options of `jax.shard_map`.
    """

    def __init__(
        self,
        plan: Plan,
        pure: PureCall,
        specs: list[Prefix],
        inferred: bool,
        out_specs: Any,
        split_rngs: Any,
        options: dict[str, Any],
    ):
        self.plan = plan
        self.pure = pure
        self.specs = specs
        self.inferred = inferred
        self.out_specs = out_specs
        self.split_rngs = split_rngs
        self.options = options
        self.spread = spread_arguments(plan, specs)

    def __call__(self, values: Sequence[Any], arrays: Sequence[Any]) -> Result:
        values, arrays = list(values), list(arrays)
        axes = Axes.of(self.options["mesh"], self.options["axis_names"])
        value_specs, array_specs = self._input_specs(values, arrays)
        in_specs = ([_spec(p) for p in value_specs], [_spec(p) for p in array_specs])
        choices = distinct([*self.specs, *value_specs, *prefix_leaves(self.out_specs)])
        reached: list[str] = []  # whether the function was called, and whether it returned

        def shard(values: list[Any], arrays: list[Any]) -> Result:
            return self.pure(self._own_keys(values, value_specs, axes), arrays)

        def place(result: Result) -> Placement:
            return place_result(self.plan, self.spread, value_specs, result, self.out_specs, settled=True)

        def grouped(values: list[Any], arrays: list[Any]) -> Any:
            reached.append("function")
            result = shard(values, arrays)
            groups = group(result, place(result), choices)
            reached.append("output")
            return groups

        try:
            out_specs = ([_spec(c) for c in choices], _WHOLE)
            mapped = jax.shard_map(grouped, in_specs=in_specs, out_specs=out_specs, **self.options)
            return ungroup(*mapped(values, arrays))
        except ValueError as error:
            if reached and reached[-1] == "function":  # its own error
                raise
            problem = find_bad_spec(self.plan, values, arrays, in_specs, axes)
            if problem is None and reached:
                problem = self._find_bad_output(shard, place, values, arrays, in_specs, axes)
            if problem is None:
                raise
            raise problem from error

    def _input_specs(self, values: list[Any], arrays: list[Any]) -> tuple[list[Prefix], list[Prefix]]:
        """The specs of the values and arrays."""
        if self.inferred:
            return list(map(_own_spec, values)), list(map(_own_spec, arrays))
        return (
            value_prefixes(self.plan, self.spread, values),
            array_prefixes(self.plan, self.spread, self.specs, arrays),
        )

    def _own_keys(self, values: list[Any], specs: list[Prefix], axes: Axes) -> list[Any]:
        """The values with keys of the shard's own in place of the replicated ones."""
        split = self.split_rngs
        chosen = axes.names if split is True else () if split is False else axes_of_spec(PartitionSpec(split))
        size = math.prod(axes.sizes.get(name, 1) for name in chosen)
        if not chosen:
            return values
        return [
            lane_keys(value, size)[jax.lax.axis_index(chosen)]
            if issubclass(cls, RngKey) and not axes_of_spec(_spec(spec)) and jax.tree.leaves(value)
            else value
            for cls, value, spec in zip(self.plan.types, values, specs, strict=True)
        ]

    def _find_bad_output(
        self, shard: Any, place: Any, values: list[Any], arrays: list[Any], in_specs: Any, axes: Axes
    ) -> errors.LiftError | None:
        """What is wrong with the specs of the result, by path."""

        def trace(take: Callable[[Result, Placement], Any], out_specs: Any) -> None:
            def once(values: list[Any], arrays: list[Any]) -> Any:
                result = shard(values, arrays)
                return take(result, place(result))

            mapped = jax.shard_map(once, in_specs=in_specs, out_specs=out_specs, **self.options)
            jax.eval_shape(mapped, values, arrays)

        return find_varying_output(trace, self.plan, axes)


def _spec(prefix: Prefix) -> PartitionSpec:
    """The spec to give to JAX; what nothing is said about is replicated."""
    return _WHOLE if prefix is None else prefix


def _own_spec(value: Any) -> PartitionSpec:
    """The spec that an array, or all arrays of a value, have on a mesh with explicit axes."""
    found = {jax.typeof(x).sharding.spec for x in jax.tree.leaves(value)}
    return found.pop() if len(found) == 1 else _WHOLE
