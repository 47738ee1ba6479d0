"""Metadata of Variables on the way into and out of a mapped axis: axis hooks run, `sharding` loses and gains a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from liftnn import errors
from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.prefixes.prefix import Prefix
from liftnn._src.trees import an
from liftnn._src.variables.metadata import Metadata
from liftnn._src.variables.variable import Variable, set_metadata_past_checks

PARTITION_NAME = "partition_name"
"""The entry of `transform_metadata` that names the axis."""

_SHARDINGS = ("sharding", "out_sharding")
"""Entries with one name for each axis: liftnn's own, and Flax NNX's."""


def adapt_metadata(
    plan: Plan,
    transform_metadata: Mapping[str, Any] | None,
    axes: Sequence[Prefix],
    place: Callable[[Result], Mapping[Slot, Prefix]],
) -> AxisMetadata | None:
    """What a transform that takes an axis away gives its pure function, as the second argument.

    Args:
      plan: The arguments.
      transform_metadata: What the user gave: the axis's name, and what it is called in other entries.
      axes: The axis of each dynamic leaf among the arguments; anything but an int for one that has none.
      place: Gives the axis of each leaf of a result.

    Returns:
      Runs the hooks hooks the user's function; None if there is nothing to do.

    Raises:
      ArgumentTypeError: If `transform_metadata` is no mapping.
    """
    if not transform_metadata:
        return None
    if not isinstance(transform_metadata, Mapping):
        raise errors.ArgumentTypeError(
            f"`transform_metadata` must be a mapping, not {transform_metadata!r}.",
            "Give the axis a name, such as {liftnn.PARTITION_NAME: 'layers'}.",
        )
    return AxisMetadata(plan, transform_metadata, axes, place)


class AxisMetadata:
    """Runs the axis hooks of Variables around the user's function; see `adapt_metadata`.

    A Variable whose metadata the function leaves alone has the very same metadata afterwards, whatever its hooks do.

    Args:
      plan: The arguments.
      transform_metadata: The axis's name, and what it is called in other entries.
      axes: The axis of each dynamic leaf among the arguments.
      place: Gives the axis of each leaf of a result.
    """

    def __init__(
        self,
        plan: Plan,
        transform_metadata: Mapping[str, Any],
        axes: Sequence[Prefix],
        place: Callable[[Result], Mapping[Slot, Prefix]],
    ):
        self._plan = plan
        self._name = transform_metadata.get(PARTITION_NAME)
        others = {k: v for k, v in transform_metadata.items() if k != PARTITION_NAME}
        self._entries = {**dict.fromkeys(_SHARDINGS, self._name), **others}
        self._axes = axes[: len(plan.variables)]
        self._place = place
        self._given: list[tuple[Metadata, Metadata]] = []
        """The metadata of each Variable outside, and inside."""

    def before(self, variables: Sequence[Variable[Any]]) -> None:
        """Takes the axis away from the metadata of the copies."""
        self._given = []
        for number, variable, axis in zip(self._plan.variables, variables, self._axes, strict=True):
            outside = variable._metadata
            if isinstance(axis, int):
                self._remove(number, variable, _position(variable, axis))
            self._given.append((outside, variable._metadata))

    def after(
        self, result: Result, variables: Sequence[Variable[Any]], made: Mapping[int, Variable[Any]]
    ) -> None:
        """Adds the axis to metadata that the function has changed, and to what it has made."""
        for variable, axis, (outside, inside) in zip(variables, self._axes, self._given, strict=True):
            if variable._metadata is inside:
                set_metadata_past_checks(variable, outside)
            elif isinstance(axis, int):
                self._add(variable, _position(variable, axis))
        axes = self._place(result)
        for number, variable in made.items():
            axis = axes[Slot(number)]
            if isinstance(axis, int):
                self._add(variable, _position(variable, axis))

    def _add(self, variable: Variable[Any], index: int) -> None:
        before = variable._metadata
        variable.add_axis(self._name, index)
        for key, value in self._entries.items():
            names = _names(before, variable, key)
            if names:
                names += [None] * (index - len(names))
                names.insert(index, value)
                _set_names(variable, key, names)

    def _remove(self, number: int, variable: Variable[Any], index: int) -> None:
        before = variable._metadata
        variable.remove_axis(self._name, index)
        for key, value in self._entries.items():
            names = _names(before, variable, key)
            if not names:
                continue
            found = names.pop(index) if index < len(names) else None
            if found != value:
                raise errors.ArgumentError(
                    f"`transform_metadata` calls the mapped axis {value!r}, but axis {index} of "
                    f"{self._plan.path_of(number)} ({an(type(variable))}) is called {found!r} in its metadata "
                    f"{key!r}: {before[key]!r}.",
                    "Correct one of the two.",
                )
            _set_names(variable, key, names)


def _names(before: Metadata, variable: Variable[Any], key: str) -> list[Any]:
    """The names of the axes in an entry; none if there is no such entry, or if the hooks have changed it already."""
    entry = variable.get_metadata(key)
    if not isinstance(entry, (tuple, PartitionSpec)) or entry is not before.get(key):
        return []
    return list(entry)


def _set_names(variable: Variable[Any], key: str, names: list[Any]) -> None:
    """Sets an entry to other names."""
    cls = type(variable.get_metadata(key))
    variable.set_metadata(**{key: cls(*names) if cls is PartitionSpec else tuple(names)})


def _position(variable: Variable[Any], axis: int) -> int:
    """The position of an axis in the shape outside; inside, the array has one axis less."""
    ranks = {jnp.ndim(x) for x in jax.tree.leaves(variable._value)}
    return axis % (ranks.pop() + 1) if axis < 0 and len(ranks) == 1 else axis
