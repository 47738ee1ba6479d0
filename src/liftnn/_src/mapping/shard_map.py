"""`shard_map`: every device runs the function on its shard of the arguments; Variables are sharded, or replicated."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from liftnn import errors
from liftnn._src.lifting.configure import keeps_signature
from liftnn._src.lifting.contract import Plan, PureFunction, Purified, Result
from liftnn._src.lifting.lift import Lifted, Options
from liftnn._src.mapping.batch_keys import element_keys, shared_keys
from liftnn._src.mapping.mapped import MappedCall
from liftnn._src.mapping.spec_errors import (
    Axes,
    axes_of_spec,
    check_specs,
    find_bad_spec,
    find_varying_output,
)
from liftnn._src.prefixes.prefix import Prefix, as_prefixes, count_positional, leaf_prefixes

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

    def bind(plan: Plan, pure: Purified) -> PureFunction:
        specs = None
        if in_specs is not None:
            specs = leaf_prefixes(plan, in_specs, bool(lifted._leading), _WHOLE, _WHOLE)
        return ShardMapCall(plan, pure, specs, out_specs, split_rngs, options)

    lifted = Lifted(
        (f,), bind, Options("shard_map", n_positional=count_positional(in_specs), of_arrays=of_arrays)
    )
    return lifted


class ShardMapCall(MappedCall):
    """A pure function under `jax.shard_map`.

    Args:
      plan: The arguments.
      pure: The pure function.
      specs: The spec of each leaf of the arguments; None takes the arrays' own specs instead.
      out_specs: The specs of the output.
      split_rngs: Along which axes shards draw numbers of their own.
      options: Options of `jax.shard_map`.
    """

    def __init__(
        self,
        plan: Plan,
        pure: Purified,
        specs: list[Prefix] | None,
        out_specs: Any,
        split_rngs: Any,
        options: dict[str, Any],
    ):
        self._inferred = specs is None
        self._split_rngs = split_rngs
        self._options = options
        whole = [_WHOLE] * len(plan.graph.edges)
        super().__init__(plan, pure, whole if specs is None else specs, out_specs)

    def prefixes_of(self, leaves: Sequence[Any]) -> list[Prefix]:
        """The spec of each dynamic leaf."""
        return list(map(_own_spec, leaves)) if self._inferred else super().prefixes_of(leaves)

    def call(self, leaves: Sequence[Any], given: list[Prefix]) -> Result:
        """Calls the function for one shard, with random keys of the shard's own in place of replicated ones."""
        axes, split = self._axes(), self._split_rngs
        chosen = axes.names if split is True else () if split is False else axes_of_spec(PartitionSpec(split))
        size = math.prod(axes.sizes.get(name, 1) for name in chosen)
        leaves = list(leaves)
        split_over = [axes_of_spec(_spec(spec)) or None for spec in given]
        for i in shared_keys(self.plan, leaves, split_over) if chosen else ():
            leaves[i] = element_keys(leaves[i], size)[jax.lax.axis_index(chosen)]
        return self.pure(leaves)

    def run(
        self, function: Callable[..., Any], leaves: Sequence[Any], given: list[Prefix], choices: list[Prefix]
    ) -> Any:
        """Maps a function of the leaves."""
        return self._map(function, given, (list(map(_spec, choices)), _WHOLE))(list(leaves))

    def _map(self, function: Callable[..., Any], given: list[Prefix], out_specs: Any) -> Callable[..., Any]:
        in_specs = (list(map(_spec, given)),)
        return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, **self._options)

    def _axes(self) -> Axes:
        return Axes.of(self._options["mesh"], self._options["axis_names"])

    def find_problem(
        self, leaves: Sequence[Any], given: list[Prefix], called: bool
    ) -> errors.LiftError | None:
        """What is wrong with the specs, by path; None if that cannot be said."""
        problem = find_bad_spec(self.plan, leaves, list(map(_spec, given)), self._axes())
        if problem is not None or not called:
            return problem

        def trace(take: Callable[[Result, Sequence[Prefix]], Any], out_specs: Any) -> None:
            def once(leaves: Sequence[Any]) -> Any:
                result = self.call(leaves, given)
                return take(result, self.place(result, given))

            jax.eval_shape(self._map(once, given, out_specs), list(leaves))

        return find_varying_output(trace, self.plan, self._axes())


def _spec(prefix: Prefix) -> PartitionSpec:
    """The spec to give to JAX; what nothing is said about is replicated."""
    return _WHOLE if prefix is None else prefix


def _own_spec(value: Any) -> PartitionSpec:
    """The spec that an array, or all arrays of a value, have on a mesh with explicit axes."""
    found = {jax.typeof(x).sharding.spec for x in jax.tree.leaves(value)}
    return found.pop() if len(found) == 1 else _WHOLE
