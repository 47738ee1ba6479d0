"""`shard_map`: each device runs the function on its shards of the arguments; Variables are sharded or replicated."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from liftnn import errors
from liftnn._src.compilation.kept_shardings import place
from liftnn._src.lifting.arguments import mark_static
from liftnn._src.lifting.call import Call
from liftnn._src.lifting.configure import keeps_signature
from liftnn._src.lifting.contract import Plan, PureFunction, Purified, Result
from liftnn._src.lifting.lift import Lifted, LiftOptions
from liftnn._src.mapping.batch_keys import element_keys, shared_keys
from liftnn._src.mapping.mapped import MappedCall
from liftnn._src.mapping.spec_errors import (
    SplitAxes,
    axes_of_spec,
    check_specs,
    find_bad_spec,
    find_unknown_axis,
    find_varying_output,
)
from liftnn._src.prefixes.prefix import (
    Prefix,
    as_prefixes,
    count_positional,
    is_prefix_leaf,
    leaf_prefixes,
    prefix_leaves,
)
from liftnn._src.publish import publish
from liftnn._src.type_variables import P, R
from liftnn._src.variables import frames
from liftnn._src.variables.placement import current_mesh
from liftnn._src.variables.variable import set_value_past_hooks

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
    """Map a function over shards of its arguments, as `jax.shard_map`; arguments and outputs may contain modules.

    Each Variable keeps its spec. Values that shards write to a sharded Variable are its new shards; values that they
    write to a replicated Variable must be equal in all shards.

    Args:
      f: A function, a bound method or a module. The module of a bound method is argument 0; if `in_specs` has no entry
        for it, it is replicated.
      out_specs: The `PartitionSpec` of the output: a tree prefix. A module that was an argument keeps its own specs.
      in_specs: The `PartitionSpec` of each argument: a tree prefix of the positional arguments. A module takes one spec
        for everything that it reaches, or a `StateSharding` with specs. Outside of transforms, Variables of no chosen
        device are there after the call, also if it only reads them. With None, numbers
        and other objects that are not arrays are passed as they are; arrays and modules are replicated. A keyword
        argument has the spec of its position, or is replicated if `in_specs` has no entry for it. The default, None,
        infers the specs from the arguments, which must then be placed on a mesh with explicit axes.
      mesh: The mesh of devices. The default, None, means the mesh of `jax.set_mesh`.
      axis_names: The mesh axes that are manual: the function runs once for each shard along them. The compiler shards
        over the other axes. The default, an empty set, means all axes.
      check_vma: Whether to check that outputs and writes with a replicated spec are equal in all shards. The default is
        True. If False, the value of one shard is used without a check.
      split_rngs: The mesh axes along which shards draw different random numbers from a replicated `Rngs`: a name, a
        tuple of names, True for all axes, or False for none. The default is True. Values that are replicated along an
        axis must not depend on these numbers.

    Returns:
      A function of global arrays that runs `f` on the shards.

    Raises:
      AliasingError: When called, if a Variable is passed with two different specs, or if a sharded one is used through
        a module that is whole.
      ArgumentError: When called, if a spec does not match the mesh or an array, or if an output with a replicated spec
        differs between shards.
      ArgumentTypeError: If `in_specs` or `out_specs` contains an object that is not a spec.
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
    jax_options = {
        "mesh": mesh,
        "out_specs": out_specs,
        "axis_names": frozenset(axis_names),
        "check_vma": check_vma,
    }
    of_arrays = functools.partial(
        jax.shard_map, **jax_options, **({} if in_specs is None else {"in_specs": in_specs})
    )
    in_specs, out_specs = as_prefixes(in_specs), as_prefixes(out_specs)
    check_specs("in_specs", in_specs)
    check_specs("out_specs", out_specs)
    options = {"mesh": mesh, "axis_names": frozenset(axis_names), "check_vma": check_vma}

    def bind(has_leading: bool, plan: Plan, pure: Purified) -> PureFunction:
        specs = None
        if in_specs is not None:
            specs = leaf_prefixes(plan, in_specs, has_leading, _WHOLE, _WHOLE)
            specs = [_WHOLE if spec is None else spec for spec in specs]
        return ShardMapCall(plan, pure, specs, out_specs, split_rngs, options)

    lift_options = LiftOptions("shard_map", n_positional=count_positional(in_specs), of_arrays=of_arrays)
    return ShardMapped(f, bind, lift_options, in_specs)


class ShardMapped(Lifted[P, R]):
    """A function mapped by `shard_map`. As in JAX, objects with the spec None are passed to the function as they are.

    Args:
      f: The user's function.
      bind: Applies the transform; called before the plan with whether argument 0 is the module of a bound method.
      options: The options of the transform.
      in_specs: The specs of the positional arguments; None infers them.
    """

    def __init__(self, f: Callable[..., Any], bind: Any, options: LiftOptions, in_specs: Any):
        super().__init__((f,), bind, options)
        self._in_specs = tuple(in_specs) if isinstance(in_specs, list) else in_specs
        self._has_static = in_specs is not None and None in prefix_leaves(in_specs)

    def _bind_to(self, plan: Plan, *pures: PureFunction) -> Any:
        return self._bind(bool(self._leading), plan, *pures)

    def _arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not self._has_static:
            return args, kwargs
        specs = self._in_specs
        if isinstance(specs, tuple) and len(specs) < len(args):
            specs = (_WHOLE,) * len(self._leading) + specs
        try:
            marked = jax.tree.map(
                lambda spec, x: mark_static(x) if spec is None else x,
                specs,
                args,
                is_leaf=lambda x: x is None or is_prefix_leaf(x),
            )
        except (TypeError, ValueError):  # not a tree prefix; the error is raised later, with the path, unless
            return args, kwargs  # keyword arguments are still to be put in their places
        return marked, kwargs

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call with modules; what it had to place is there afterwards, also if it is only read."""
        if not frames.is_plain():
            return super()._call(args, kwargs)
        placed: list[Any] = []

        def act(call: Call) -> Result:
            placed[:] = call.bound.place_arguments(call.leaves)
            return call.bound(placed)

        call, result = self._run(args, kwargs, act)
        for number, old, new in zip(call.plan.variables, call.leaves, placed, strict=False):
            if new is not old:
                set_value_past_hooks(call.objects[number], new)
        return self._commit(call, result)


class ShardMapCall(MappedCall):
    """A pure function under `jax.shard_map`.

    Args:
      plan: The arguments.
      pure: The pure function.
      specs: The spec of each leaf of the arguments; None infers the specs from the arrays.
      out_specs: The specs of the output.
      split_rngs: The mesh axes along which shards draw different random numbers.
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
        super().__init__(plan, pure, whole if specs is None else specs, out_specs, _WHOLE)

    def prefixes_of(self, leaves: Sequence[Any]) -> list[Prefix]:
        """Return the spec of each dynamic leaf."""
        return list(map(_spec_of, leaves)) if self._inferred else super().prefixes_of(leaves)

    def place_arguments(self, leaves: Sequence[Any]) -> Sequence[Any]:
        """Return the leaves of a call with the arrays of no chosen device where their specs want them."""
        mesh = self._options["mesh"] or current_mesh()
        if self._inferred or not isinstance(mesh, Mesh):
            return leaves
        return place(leaves, [_sharding(mesh, _spec(spec)) for spec in self.prefixes_of(leaves)])

    def call(self, leaves: Sequence[Any], prefixes: list[Prefix]) -> Result:
        """Call the function for one shard, with its own random keys in place of replicated ones."""
        axes, split = self._axes(), self._split_rngs
        chosen = axes.names if split is True else () if split is False else axes_of_spec(PartitionSpec(split))
        leaves = list(leaves)
        split_over = [axes_of_spec(_spec(spec)) or None for spec in prefixes]
        shared = shared_keys(self.plan, leaves, split_over) if chosen else ()
        size, index = self._position(chosen) if shared else (1, 0)
        for i in shared:
            leaves[i] = element_keys(leaves[i], size)[index]
        return self.pure(leaves)

    def run(
        self,
        function: Callable[..., Any],
        leaves: Sequence[Any],
        prefixes: list[Prefix],
        choices: list[Prefix],
    ) -> Any:
        """Map a function of the leaves."""
        return self._map(function, prefixes, (list(map(_spec, choices)), _WHOLE))(list(leaves))

    def _map(
        self, function: Callable[..., Any], prefixes: list[Prefix], out_specs: Any
    ) -> Callable[..., Any]:
        in_specs = (list(map(_spec, prefixes)),)
        return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, **self._options)

    def _position(self, names: Sequence[Any]) -> tuple[int, Any]:
        """Return the number of shards along axes, which may be those of an outer map, and the number of this shard."""
        try:
            return math.prod(map(jax.lax.axis_size, names)), jax.lax.axis_index(names)
        except NameError as error:
            raise errors.ArgumentError(
                f"`split_rngs` is {self._split_rngs!r}, but the axes of this shard_map are: "
                f"{', '.join(map(repr, self._axes().names))}.",
                "Name some of these axes, or pass True for all of them.",
            ) from error

    def _axes(self) -> SplitAxes:
        return SplitAxes.of(self._options["mesh"], self._options["axis_names"])

    def find_problem(
        self, leaves: Sequence[Any], prefixes: list[Prefix], called: bool
    ) -> errors.LiftError | None:
        """Return the error that names the path of a wrong spec; None if there is none."""
        if not isinstance(self._options["mesh"], (Mesh, AbstractMesh, type(None))):
            return None  # JAX raises the error
        problem = find_bad_spec(self.plan, leaves, list(map(_spec, prefixes)), self._axes())
        problem = problem or find_unknown_axis(self.out_prefix, self._axes())
        if problem is not None or not called:
            return problem

        def trace(take: Callable[[Result, Sequence[Prefix]], Any], out: Sequence[Prefix]) -> None:
            def once(leaves: Sequence[Any]) -> Any:
                result = self.call(leaves, prefixes)
                return take(result, self.place(result, prefixes))

            jax.eval_shape(self._map(once, prefixes, list(map(_spec, out))), list(leaves))

        return find_varying_output(trace, self.plan, self._axes())


def _spec(prefix: Prefix) -> PartitionSpec:
    """Return the spec to pass to JAX; None means replicated."""
    return _WHOLE if prefix is None else prefix


def _sharding(mesh: Mesh, spec: PartitionSpec) -> NamedSharding | None:
    """Return a sharding; None for a spec that does not fit the mesh, for which the call raises an error."""
    try:
        return NamedSharding(mesh, spec)
    except ValueError:
        return None


def _spec_of(value: Any) -> PartitionSpec:
    """Return the common spec of the arrays of a value on a mesh with explicit axes; replicated if they differ."""
    found = {jax.typeof(x).sharding.spec for x in jax.tree.leaves(value)}
    return found.pop() if len(found) == 1 else _WHOLE


publish(shard_map)
