"""`StateSharding`: a sharding, or a spec, for each Variable of a module."""

from __future__ import annotations

from typing import Any

from liftnn.lifting.prefix import ByFilter


class StateSharding(ByFilter):
    """The sharding of each Variable of a module, by filter, for `in_shardings` and `out_shardings`.

    Args:
      shardings: A mapping of filter to `jax.sharding.Sharding`, or None to leave it to the compiler. The first match
        wins.

    Raises:
      FilterError: If one of the filters is not a filter.

    Example:
      >>> import jax, liftnn
      >>> mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
      >>> placed = liftnn.StateSharding({liftnn.Param: whole, ...: None})
      >>> model = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0))
      >>> liftnn.jit(lambda m: m.kernel.sum(), in_shardings=(placed,))(model).shape
      ()
    """

    def __init__(self, shardings: Any):
        super().__init__(shardings)
