"""Updates of Variable metadata under a mapped axis: axis hooks run, and `sharding` loses and gains the axis name."""

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
from liftnn._src.variables.metadata import SHARDING_NAMES, Metadata
from liftnn._src.variables.variable import Variable, set_metadata_past_checks

PARTITION_NAME = "partition_name"
"""The key of `transform_metadata` for the name of the mapped axis."""


def adapt_metadata(
    plan: Plan,
    transform_metadata: Mapping[str, Any] | None,
    axes: Sequence[Prefix],
    place: Callable[[Result], Mapping[Slot, Prefix]],
) -> AxisMetadata | None:
    """Return the hooks that a mapping transform passes to its pure function to adapt metadata.

    Args:
      plan: The arguments.
      transform_metadata: The user's mapping: the name of the axis, and its names in other metadata entries.
      axes: The axis of each dynamic leaf of the arguments; an int if it is mapped.
      place: Returns the axis of each leaf of a result.

    Returns:
      An object that runs the hooks before and after the user's function; None if there is nothing to do.

    Raises:
      ArgumentTypeError: If `transform_metadata` is not a mapping.
    """
    if not transform_metadata:
        return None
    if not isinstance(transform_metadata, Mapping):
        raise errors.ArgumentTypeError(
            f"`transform_metadata` must be a mapping, not {transform_metadata!r}.",
            "Pass the name of the axis in a dict, such as {liftnn.PARTITION_NAME: 'layers'}.",
        )
    return AxisMetadata(plan, transform_metadata, axes, place)


class AxisMetadata:
    """The axis hooks of Variables, run before and after the user's function; see `adapt_metadata`.

    If the function does not change the metadata of a Variable, the original metadata are restored afterwards.

    Args:
      plan: The arguments.
      transform_metadata: The name of the axis, and its names in other metadata entries.
      axes: The axis of each dynamic leaf of the arguments.
      place: Returns the axis of each leaf of a result.
    """

    def __init__(
        self,
        plan: Plan,
        transform_metadata: Mapping[str, Any],
        axes: Sequence[Prefix],
        place: Callable[[Result], Mapping[Slot, Prefix]],
    ):
        self._plan = plan
        self._name, self._entries = axis_entries(transform_metadata)
        self._axes = axes[: len(plan.variables)]
        self._place = place
        self._given: list[tuple[Metadata, Metadata]] = []
        """The metadata of each Variable outside and inside the function."""

    def before(self, variables: Sequence[Variable[Any]]) -> None:
        """Remove the axis from the metadata of the copies."""
        self._given = []
        for number, variable, axis in zip(self._plan.variables, variables, self._axes, strict=True):
            outside = variable._metadata
            if isinstance(axis, int):
                self._remove(number, variable, axis_position(variable, axis))
            self._given.append((outside, variable._metadata))

    def after(
        self, result: Result, variables: Sequence[Variable[Any]], created: Mapping[int, Variable[Any]]
    ) -> None:
        """Add the axis to the metadata that the function changed, and to Variables that it created."""
        for variable, axis, (outside, inside) in zip(variables, self._axes, self._given, strict=True):
            if variable._metadata is inside:
                set_metadata_past_checks(variable, outside)
            elif isinstance(axis, int):
                self._add(variable, axis_position(variable, axis))
        axes = self._place(result)
        for number, variable in created.items():
            axis = axes[Slot(number)]
            if isinstance(axis, int):
                self._add(variable, axis_position(variable, axis))

    def _add(self, variable: Variable[Any], index: int) -> None:
        add_axis(variable, index, self._name, self._entries)

    def _remove(self, number: int, variable: Variable[Any], index: int) -> None:
        remove_axis(variable, index, self._name, self._entries, lambda: self._plan.path_of(number))


def axis_entries(transform_metadata: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the name of the mapped axis, and its name in each entry of the metadata.

    Args:
      transform_metadata: The user's mapping.

    Returns:
      The name, which is None if the axis is unnamed, and the names by entry.
    """
    name = transform_metadata.get(PARTITION_NAME)
    others = {k: v for k, v in transform_metadata.items() if k != PARTITION_NAME}
    return name, {**dict.fromkeys(SHARDING_NAMES, name), **others}


def add_axis(variable: Variable[Any], index: int, name: Any, entries: Mapping[str, Any]) -> None:
    """Add a mapped axis to the metadata of a Variable; the inverse of `remove_axis`.

    Args:
      variable: The Variable.
      index: The position of the axis, not negative.
      name: The name of the axis.
      entries: Its name in each entry of the metadata.
    """
    before = variable._metadata
    variable.add_axis(index, name)
    for key, value in entries.items():
        names = _names(before, variable, key)
        if names:
            names += [None] * (index - len(names))
            names.insert(index, value)
            _set_names(variable, key, names)


def remove_axis(
    variable: Variable[Any], index: int, name: Any, entries: Mapping[str, Any], path: Callable[[], str]
) -> None:
    """Remove a mapped axis from the metadata of a Variable.

    Args:
      variable: The Variable.
      index: The position of the axis, not negative.
      name: The name of the axis.
      entries: Its name in each entry of the metadata.
      path: Returns the path of the Variable, for the message.

    Raises:
      ArgumentError: If the metadata have another name for the axis.
    """
    before = variable._metadata
    variable.remove_axis(index, name)
    for key, value in entries.items():
        names = _names(before, variable, key)
        if not names:
            continue
        found = names.pop(index) if index < len(names) else None
        if found != value:
            raise errors.ArgumentError(
                f"`transform_metadata` names the mapped axis {value!r}, but axis {index} of "
                f"{path()} ({an(type(variable))}) is named {found!r} in its metadata "
                f"{key!r}: {before[key]!r}.",
                "Use the same name in `transform_metadata` and in the metadata of the Variable.",
            )
        _set_names(variable, key, names)


def _names(before: Metadata, variable: Variable[Any], key: str) -> list[Any]:
    """Return the axis names in an entry; an empty list if it does not exist or the hooks have already changed it."""
    entry = variable.get_metadata(key)
    if not isinstance(entry, (tuple, PartitionSpec)) or entry is not before.get(key):
        return []
    return list(entry)


def _set_names(variable: Variable[Any], key: str, names: list[Any]) -> None:
    """Set the axis names of an entry, keeping its type."""
    cls = type(variable.get_metadata(key))
    variable.set_metadata(**{key: cls(*names) if cls is PartitionSpec else tuple(names)})


def axis_position(variable: Variable[Any], axis: int) -> int:
    """Return the non-negative position of an axis in the outside shape; inside, the array has one axis less."""
    ranks = {jnp.ndim(x) for x in jax.tree.leaves(variable._value)}
    return axis % (ranks.pop() + 1) if axis < 0 and len(ranks) == 1 else axis
