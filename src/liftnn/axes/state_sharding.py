"""`StateSharding`: a sharding, or a spec, for each Variable of a module."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from liftnn.axes.prefix import ByFilter
from liftnn.tracebacks import boundary
from liftnn.trees import Path
from liftnn.variables.state import State
from liftnn.variables.variable import Variable


@boundary
class StateSharding(ByFilter):
    """The sharding of each Variable of a module, by filter, for `jit`; the spec of each, for `shard_map`.

    Args:
      shardings: A mapping of filter to `jax.sharding.Sharding`, or None to leave it to the compiler; for `shard_map`
        to `jax.sharding.PartitionSpec`. The first match wins. A State that holds them, as `get_named_sharding` and
        `get_partition_spec` give it, is taken by path.

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
        super().__init__(_by_path(shardings) if isinstance(shardings, State) else shardings)


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Matches Variables at some paths.

    Args:
      paths: The paths.
    """

    paths: frozenset[Path]

    def __call__(self, path: Path, x: Any) -> bool:
        """Whether it stands at one of them."""
        return path in self.paths


def _by_path(shardings: State) -> list[tuple[OneOf, Any]]:
    """A filter for each different sharding in a State."""
    paths: dict[Any, list[Path]] = {}
    for path, x in shardings.flat().items():
        paths.setdefault(x.raw_value if isinstance(x, Variable) else x, []).append(path)
    return [(OneOf(frozenset(each)), sharding) for sharding, each in paths.items()]


def as_prefixes(shardings: Any) -> Any:
    """A tree of shardings or specs with a StateSharding in place of each State."""
    return jax.tree.map(
        lambda x: StateSharding(x) if isinstance(x, State) else x,
        shardings,
        is_leaf=lambda x: isinstance(x, State),
    )
