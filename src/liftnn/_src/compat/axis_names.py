"""The names of a mapped axis in the metadata of Variables: the decorator `transform_metadata`, and its two steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from liftnn import errors
from liftnn._src.annotations import signature_of
from liftnn._src.compat.keywords import take_by_name
from liftnn._src.compat.modes import check_modes
from liftnn._src.graph.kinds import is_object
from liftnn._src.lifting.configure import configurable
from liftnn._src.mapping.axis_metadata import (
    PARTITION_NAME,
    add_axis as add_axis_to,
    axis_entries,
    axis_position,
    remove_axis as remove_axis_from,
)
from liftnn._src.modules.verbs import find_variables
from liftnn._src.prefixes.prefix import ByFilter, Prefix, broadcast_over
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, format_path, key_of
from liftnn._src.type_variables import P, R
from liftnn._src.variables.metadata import Metadata
from liftnn._src.variables.variable import Variable, set_metadata_past_checks


class _Mapped(NamedTuple):
    """A Variable, its path, and its axis."""

    variable: Variable[Any]
    path: str
    axis: Any


@functools.partial(take_by_name, name="f")
@configurable
def transform_metadata(
    f: Callable[P, R],
    /,
    *,
    in_axes: Any = 0,
    out_axes: Any = 0,
    partition: str | None,
    graph: bool | None = None,
) -> Callable[P, R]:
    """Let a function that is mapped by `vmap` or `scan` see the metadata of Variables without the mapped axis.

    The argument `transform_metadata` of `vmap` and `scan` does the same.

    Args:
      f: The function.
      in_axes: The mapped axis of each positional argument, as for `vmap`.
      out_axes: The axis that the transform adds to Variables that the function creates and returns.
      partition: The name of the axis, or None.
      graph: Accepted without effect.

    Returns:
      A function with the same signature. While it runs, the axis is removed from the names in the metadata of its
      arguments; afterwards it is there again, and in the metadata of new Variables.

    Raises:
      ArgumentError: If the metadata have another name for the axis. Nothing is changed then.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> @nnx.vmap
      ... @nnx.transform_metadata(partition="layers")
      ... def create(x):
      ...   return nnx.Param(x, sharding=("in",))
      >>> create(jnp.ones((3, 2))).sharding
      ('layers', 'in')
    """
    check_modes(graph=graph)
    name, entries = axis_entries({PARTITION_NAME: partition})

    def remove_axis(variables: Mapping[int, _Mapped]) -> None:
        for x in variables.values():
            if isinstance(x.axis, int):
                index = axis_position(x.variable, x.axis)
                remove_axis_from(x.variable, index, name, entries, lambda x=x: x.path)

    def add_axis(
        variables: Mapping[int, _Mapped], inside: Mapping[int, Metadata], outside: Mapping[int, Metadata]
    ) -> None:
        for key, x in variables.items():
            if key in inside and x.variable._metadata is inside[key]:
                set_metadata_past_checks(x.variable, outside[key])
            elif isinstance(x.axis, int):
                add_axis_to(x.variable, axis_position(x.variable, x.axis), name, entries)

    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            bound = signature_of(f).bind(*args, **kwargs)
            args, kwargs = bound.args, bound.kwargs
        inputs = _mapped(args, in_axes, "the positional arguments")
        outside = {key: x.variable._metadata for key, x in inputs.items()}
        changed: Any = f
        try:
            remove_axis(inputs)
            inside = {key: x.variable._metadata for key, x in inputs.items()}
            out = changed(*args, **kwargs)
            variables = {
                **_mapped(out, out_axes, "the output"),
                **_mapped(args, in_axes, "the positional arguments"),
            }
            add_axis(variables, inside, outside)
        except BaseException:
            _restore([(x.variable, outside[key]) for key, x in inputs.items()])
            raise
        return out

    return boundary(call)


def _mapped(tree: Any, axes: Prefix, what: str) -> dict[int, _Mapped]:
    """Return the Variables of a tree by id, with their axes."""
    entries, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_object)
    found: dict[int, _Mapped] = {}
    for (path, leaf), axis in zip(entries, broadcast_over(axes, treedef, what), strict=True):
        root = format_path(tuple(map(key_of, path)), what)
        for below, x in find_variables(leaf, ...).items():
            variable_axis = axis.of(below, x, root) if isinstance(axis, ByFilter) else axis
            found.setdefault(id(x), _Mapped(x, format_path(below, root), variable_axis))
    return found


def _restore(before: Iterable[tuple[Variable[Any], Metadata]]) -> None:
    """Restore the metadata of Variables."""
    for variable, metadata in before:
        if variable._metadata is not metadata:
            set_metadata_past_checks(variable, metadata)


def add_axis(tree: Any, index: int, transform_metadata: Mapping[str, Any]) -> Any:
    """Add the name of a mapped axis to the metadata of Variables, in place; the inverse of `remove_axis`.

    Args:
      tree: A module, a State or a Variable, or a tree of them.
      index: The position of the axis, not negative.
      transform_metadata: The name of the axis under `PARTITION_NAME`, and its names in other metadata entries.

    Returns:
      The tree itself.

    Raises:
      ArgumentError: If `transform_metadata` does not name the axis. Nothing is changed then.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> v = nnx.Param(jnp.ones((4, 2)), out_sharding=("in",))
      >>> nnx.spmd.add_axis(v, 0, {nnx.PARTITION_NAME: "layers"}).out_sharding
      ('layers', 'in')
    """
    name, entries = _axis_entries(transform_metadata)
    _change_all(tree, lambda x, _: add_axis_to(x, index, name, entries))
    return tree


def remove_axis(tree: Any, index: int, transform_metadata: Mapping[str, Any]) -> Any:
    """Remove the name of a mapped axis from the metadata of Variables, in place; the inverse of `add_axis`.

    Args:
      tree: A module, a State or a Variable, or a tree of them.
      index: The position of the axis, not negative.
      transform_metadata: The name of the axis under `PARTITION_NAME`, and its names in other metadata entries.

    Returns:
      The tree itself.

    Raises:
      ArgumentError: If `transform_metadata` does not name the axis, or names another one than the metadata. Nothing is
        changed then.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> v = nnx.Param(jnp.ones((4, 2)), out_sharding=("layers", "in"))
      >>> nnx.spmd.remove_axis(v, 0, {nnx.PARTITION_NAME: "layers"}).out_sharding
      ('in',)
    """
    name, entries = _axis_entries(transform_metadata)
    _change_all(tree, lambda x, path: remove_axis_from(x, index, name, entries, lambda: format_path(path)))
    return tree


def _change_all(tree: Any, change: Callable[[Variable[Any], Path], Any]) -> None:
    """Change the metadata of all Variables of a tree, or of none."""
    variables = find_variables(tree, ...)
    before = [(x, x._metadata) for x in variables.values()]
    try:
        for path, x in variables.items():
            change(x, path)
    except BaseException:
        _restore(before)
        raise


def _axis_entries(transform_metadata: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the name of the axis, and its name in each entry of the metadata."""
    if PARTITION_NAME not in transform_metadata:
        raise errors.ArgumentError(
            f"`transform_metadata` {transform_metadata!r} does not name the axis.",
            "Pass the name in a dict: {nnx.PARTITION_NAME: 'layers'}.",
        )
    return axis_entries(transform_metadata)
