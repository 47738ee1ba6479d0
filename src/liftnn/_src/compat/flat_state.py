"""`FlatState`: the Variables of a State in a sequence, with their paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, overload

import jax

from liftnn._src.filters import Filter
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, sort_key
from liftnn._src.variables.state import State, as_state

Leaves: TypeAlias = Mapping[Path, Any] | Iterable[tuple[Path, Any]]


def sort_leaves(leaves: Leaves) -> list[tuple[Path, Any]]:
    """Return leaves by path in the order of `sort_key`."""
    pairs = leaves.items() if isinstance(leaves, Mapping) else leaves
    return sorted(pairs, key=lambda pair: sort_key(pair[0]))


def sort_states(tree: Any) -> Any:
    """Return a tree with its States in the order of Flax NNX: sorted by path."""
    return jax.tree.map(
        lambda x: State.from_flat(sort_leaves(x.flat().items())) if isinstance(x, State) else x,
        tree,
        is_leaf=lambda x: isinstance(x, State),
    )


@boundary
class FlatState(Sequence[tuple[Path, Any]]):
    """The Variables and array leaves of a State with their paths: a sequence of pairs, and a JAX pytree.

    Args:
      items: Pairs of path and Variable or array.
      sort: Whether to sort them by path. The default is False.

    Example:
      >>> from liftnn.compat import nnx
      >>> flat = nnx.to_flat_state(nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
      >>> flat.paths, flat[0][1].shape
      ((('bias',), ('kernel',)), (3,))
    """

    __slots__ = ("_leaves", "_paths")

    def __init__(self, items: Iterable[tuple[Path, Any]], /, *, sort: bool = False):
        pairs = sort_leaves(items) if sort else list(items)
        self._paths: tuple[Path, ...] = tuple([path for path, _ in pairs])
        self._leaves: list[Any] = [x for _, x in pairs]

    @classmethod
    def from_sorted_keys_values(cls, paths: Sequence[Path], leaves: Sequence[Any], /) -> FlatState:
        """Create a FlatState from paths and leaves.

        Args:
          paths: The paths.
          leaves: A Variable or array for each.

        Returns:
          The FlatState.
        """
        return cls(zip(paths, leaves, strict=True))

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths."""
        return self._paths

    @property
    def leaves(self) -> list[Any]:
        """The Variables and arrays."""
        return self._leaves

    @overload
    def __getitem__(self, index: int) -> tuple[Path, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> FlatState: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return FlatState(zip(self._paths[index], self._leaves[index], strict=True))
        return self._paths[index], self._leaves[index]

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[tuple[Path, Any]]:
        return iter(zip(self._paths, self._leaves, strict=True))

    def __repr__(self) -> str:
        return f"FlatState({list(self)!r})"

    def to_nested_state(self) -> State:
        """Return the State; the inverse of `to_flat_state`."""
        return State(State.from_flat(self))  # what is a mapping becomes a State

    def split(self, *filters: Filter) -> Any:
        """Partition the leaves by the first filter that each matches.

        Args:
          *filters: One or more filters; the last may be `...`.

        Returns:
          A FlatState for one filter, a tuple of them for several.

        Raises:
          FilterError: If a leaf matches none of them.
        """
        return _each(self.to_nested_state().split(*filters))

    def filter(self, *filters: Filter) -> Any:
        """Return the leaves that match.

        Args:
          *filters: One or more filters; the first match wins.

        Returns:
          A FlatState for one filter, a tuple of them for several.
        """
        return _each(self.to_nested_state().filter(*filters))

    @staticmethod
    def merge(*flat_states: Iterable[tuple[Path, Any]]) -> FlatState:
        """Return the leaves of several FlatStates, sorted by path.

        Args:
          *flat_states: The FlatStates, or iterables of pairs of path and leaf.

        Returns:
          The FlatState.
        """
        return FlatState([pair for flat in flat_states for pair in flat], sort=True)


jax.tree_util.register_pytree_node(
    FlatState,
    lambda flat: (list(flat.leaves), flat.paths),
    lambda paths, leaves: FlatState.from_sorted_keys_values(paths, list(leaves)),
)


def _each(states: Any) -> Any:
    return tuple(map(to_flat_state, states)) if isinstance(states, tuple) else to_flat_state(states)


@boundary
def to_flat_state(state: Mapping[Any, Any]) -> FlatState:
    """Return the leaves of a State with their paths, sorted by path.

    Args:
      state: The State, or nested dicts of Variables and arrays.

    Returns:
      The FlatState.

    Raises:
      ArgumentTypeError: If it is neither.

    Example:
      >>> from liftnn.compat import nnx
      >>> [path for path, _ in nnx.to_flat_state(nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0))))]
      [('bias',), ('kernel',)]
    """
    return FlatState(as_state("to_flat_state", state).flat().items(), sort=True)
