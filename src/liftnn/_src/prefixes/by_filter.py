"""Prefixes that depend on the Variable: `StateAxes` and `StateSharding`, an axis or a sharding for each filter."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax

from liftnn import errors
from liftnn._src.filters import Filter, to_predicate
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, format_path
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

Prefix = Any
"""An axis, a sharding, a spec or None; or a `ByFilter`."""


class ByFilter:
    """A prefix that depends on the Variable: the first filter that matches decides.

    Args:
      prefixes: A mapping, or pairs, of filter and prefix.

    Raises:
      FilterError: If one of the filters is not a filter.
    """

    def __init__(self, prefixes: Any):
        pairs = prefixes.items() if hasattr(prefixes, "items") else prefixes
        self.pairs = tuple([(to_predicate(f), prefix) for f, prefix in pairs])

    def of(self, path: Path, x: Any, root: str = "") -> Prefix:
        """The prefix of a Variable or bare array at a path below the argument that `root` names."""
        for predicate, prefix in self.pairs:
            if predicate(path, x):
                return prefix
        what = f"a {type(x).__name__}" if isinstance(x, Variable) else "an array"
        raise errors.FilterError(
            f"{format_path(path, root)} ({what}) matches none of the filters of the {type(self).__name__}."
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByFilter) and type(self) is type(other) and self.pairs == other.pairs

    def __hash__(self) -> int:
        return hash((type(self), self.pairs))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.pairs)})"


@boundary
class StateAxes(ByFilter):
    """The mapped axis of each Variable of a module, by filter.

    Args:
      axes: A mapping of filter to axis: an int, or None for Variables that all lanes share. The first match wins.

    Raises:
      FilterError: If one of the filters is not a filter.

    Example:
      >>> import jax, jax.numpy as jnp, liftnn
      >>> axes = liftnn.StateAxes({liftnn.Param: 0, ...: None})
      >>> init = liftnn.vmap(lambda key: liftnn.Linear(2, 3, rngs=liftnn.Rngs(key)))
      >>> ensemble = init(jax.random.split(jax.random.key(0), 5))
      >>> liftnn.vmap(lambda m, x: m(x), in_axes=(axes, None))(ensemble, jnp.ones((1, 2))).shape
      (5, 1, 3)
    """

    def __init__(self, axes: dict[Any, int | None] | Iterable[tuple[Filter, int | None]]):
        super().__init__(axes)


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
