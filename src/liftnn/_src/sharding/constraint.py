"""`with_logical_constraint`: shard activations by the names of their axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from liftnn import errors
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import format_path, is_argument_array, key_of
from liftnn._src.variables.axis_rules import AxisRules, rules_or_current
from liftnn._src.variables.declared import declare, describe, find_problem, misfit
from liftnn._src.variables.operators import unwrap
from liftnn._src.variables.placement import current_mesh, find_commitment, place

T = TypeVar("T")


@boundary
def with_logical_constraint(
    x: T, names: Sequence[Any], rules: AxisRules | None = None, mesh: Any = None
) -> T:
    """Return an array, or a tree of arrays, with a sharding given by the names of its axes.

    Inside a transform this tells the compiler how to shard an intermediate result; elsewhere it moves the array. Axes
    of the mesh that are explicit get their sharding in the type of the result. Without a mesh, nothing happens, so the
    same model runs on one device; and a `shard_map` has its own arrays in each shard, so its axes are left out.

    Args:
      x: An array, or a tree of arrays that all have these axes.
      names: A name, a tuple of names, or None (not sharded) for each axis; a mesh axis, or a name that the rules map to
        mesh axes. `jax.sharding.PartitionSpec.UNCONSTRAINED` leaves an axis to the compiler.
      rules: A mapping, or pairs, from names to mesh axes; see `get_partition_spec`. The default, None, means the rules
        of `axis_rules`.
      mesh: The mesh. The default, None, means the current one (`jax.set_mesh`).

    Returns:
      The arrays with the same values.

    Raises:
      ShardingError: If the sharding does not fit the mesh or an array; it names all of them.
      ArgumentTypeError: If `names` is not a sequence, or `rules` is neither a mapping nor pairs.
      ArgumentError: If there are two rules for a name.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> with liftnn.axis_rules({"batch": "data"}, mesh):
      ...   y = liftnn.with_logical_constraint(jnp.ones((8, 2)), ("batch", None))
      >>> y.sharding.spec
      P('data', None)
    """
    if isinstance(names, str) or not isinstance(names, (tuple, list, PartitionSpec)):
        raise errors.ArgumentTypeError(
            f"with_logical_constraint takes a tuple with one entry for each axis, not {names!r}.",
            'Pass a tuple, such as ("batch", None).',
        )
    declared = declare(names, rules_or_current(rules))
    mesh = current_mesh() if mesh is None else mesh
    if mesh is None:
        return x
    lines: list[str] = []

    def check(path: Any, leaf: Any) -> None:
        shape = jnp.shape(leaf)
        problem = find_problem(declared, shape, mesh) or find_commitment(leaf, mesh)
        if problem:
            name = format_path(map(key_of, path), "x")
            lines.append(describe(f"{name} (an array of shape {shape})", declared, problem))

    arrays = jax.tree.map(
        unwrap, x, is_leaf=lambda leaf: not is_argument_array(leaf) and leaf is not unwrap(leaf)
    )
    jax.tree_util.tree_map_with_path(check, arrays)
    if lines:
        raise misfit(mesh, lines)
    return jax.tree.map(lambda leaf: place(leaf, mesh, declared), arrays)


publish(with_logical_constraint)
