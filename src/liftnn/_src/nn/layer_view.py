"""One layer of a module that holds many: a view whose Variables read and write their slices, or an independent copy."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.graph.graphdef import GraphDef, WalkedTree, split, walk_tree
from liftnn._src.graph.kinds import MODULE
from liftnn._src.graph.merge import merge_all
from liftnn._src.mapping.axis_metadata import PARTITION_NAME, axis_entries, remove_axis
from liftnn._src.mapping.vmap import vmap
from liftnn._src.modules.update import update
from liftnn._src.trees import an, format_path, list_paths, type_of
from liftnn._src.variables import frames
from liftnn._src.variables.operators import unwrap_raw
from liftnn._src.variables.state import State
from liftnn._src.variables.storage import Storage
from liftnn._src.variables.variable import Variable


class SliceStorage(Storage):
    """The storage of a Variable that shows one slice of another one.

    Args:
      whole: The Variable with the values of all layers.
      position: The position of the slice along axis 0.
    """

    __slots__ = ("position", "whole")

    def __init__(self, whole: Variable[Any], position: int):
        self.whole = whole
        self.position = position

    @property
    def value(self) -> Any:
        """The slice; assigning writes it into the whole."""
        return jax.tree.map(lambda x: x[self.position], self.whole.raw_value)

    @value.setter
    def value(self, new: Any) -> None:
        self.whole.raw_value = jax.tree.map(
            lambda x, y: set_slice(x, self.position, y), self.whole.raw_value, new
        )


def set_slice(x: jax.Array, position: int, new: Any) -> jax.Array:
    """Return a stacked array with another slice.

    Args:
      x: The stacked array.
      position: The position of the slice along axis 0.
      new: The slice.

    Returns:
      The new stacked array.

    Raises:
      StructureError: If the slice has another shape or dtype: the other layers would not fit.
    """
    if jnp.shape(new) != x.shape[1:] or not _fits(new, x.dtype):
        of_layer = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        raise errors.StructureError(
            f"A layer of a Stack cannot be changed to {type_of(new)}: in all its layers the value is "
            f"{type_of(of_layer)}.",
            "Assign a value of the same shape and dtype, or make a new Stack.",
        )
    return x.at[position].set(new)


def _fits(new: Any, dtype: Any) -> bool:
    """Return whether a value can be stored in arrays of a dtype without loss."""
    return getattr(new, "dtype", None) == dtype or (
        not jnp.issubdtype(dtype, jax.dtypes.extended) and jnp.result_type(new, dtype) == dtype
    )


def axis_names(transform_metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the name of the axis of the layers in metadata; by default it has none."""
    return {PARTITION_NAME: None} if transform_metadata is None else transform_metadata


def view_layer(whole: Any, position: int, transform_metadata: Mapping[str, Any]) -> Any:
    """Return one layer as a view: its Variables read and write the stacked values.

    Args:
      whole: The module with the values of all layers, stacked along axis 0.
      position: The position of the layer.
      transform_metadata: The name of the axis of the layers in metadata.

    Returns:
      A module of the same class. Its attributes cannot be assigned.
    """
    walked = walk_tree(whole)
    layer, objects = _merge_slices(walked, position, transform_metadata)
    for x, stacked, spec in zip(objects, walked.objects, walked.graphdef.specs, strict=True):
        if isinstance(x, Variable):
            object.__setattr__(x, "_storage", SliceStorage(stacked, position))
        elif spec.kind is MODULE:
            object.__setattr__(x, "_owner", frames.VIEW)
    return layer


def copy_layer(whole: Any, position: int, transform_metadata: Mapping[str, Any]) -> Any:
    """Return one layer as a module of its own; the arguments are those of `view_layer`."""
    return _merge_slices(walk_tree(whole), position, transform_metadata)[0]


def _merge_slices(
    walked: WalkedTree, position: int, transform_metadata: Mapping[str, Any]
) -> tuple[Any, list[Any]]:
    """Return new objects with the values of one layer."""
    leaves = [
        jax.tree.map(lambda x: x[position], unwrap_raw(x)) for x in map(walked.leaf, walked.graphdef.slots)
    ]
    layer, merged = merge_all(walked.graphdef, leaves, frames.owner_now())
    name, entries = axis_entries(transform_metadata)
    for path, slot in walked.graphdef.leaves.items() if transform_metadata else ():
        variable = merged.objects[slot.node]
        if isinstance(variable, Variable) and slot.key is None:
            remove_axis(variable, 0, name, entries, lambda path=path: format_path(path))
    return layer, merged.objects


def write_layers(whole: Any, layers: Mapping[int, Any], transform_metadata: Mapping[str, Any]) -> None:
    """Replace the values of layers by those of other modules.

    Args:
      whole: The module with the values of all layers, stacked along axis 0.
      layers: The other modules by position; they are copied.
      transform_metadata: The name of the axis of the layers in metadata.

    Raises:
      StructureError: If a module differs from the layers in more than values. Nothing is changed then.
    """
    graphdef = split(copy_layer(whole, 0, transform_metadata))[-1]
    leaves = {path: unwrap_raw(x) for path, x in walk_tree(whole).leaves()}
    for position, layer in layers.items():
        walked = walk_tree(layer)
        check_equal(graphdef, walked.graphdef, "The layers of the Stack", f"the new layer {position}")
        for path, x in walked.leaves():
            write = functools.partial(set_slice, position=position)
            leaves[path] = jax.tree.map(
                lambda old, new, write=write: write(old, new=new), leaves[path], unwrap_raw(x)
            )
    update(whole, State.from_flat(leaves))


def stack_layers(layers: Sequence[Any], transform_metadata: Mapping[str, Any]) -> Any:
    """Return one module with the values of several, stacked along axis 0.

    Args:
      layers: The modules, at least one; they are copied.
      transform_metadata: The name of the axis of the layers in metadata.

    Returns:
      The module.

    Raises:
      AliasingError: If two of the modules share a Variable.
      StructureError: If the modules differ in more than values.
    """
    walks = [walk_tree(layer) for layer in layers]
    graphdef = walks[0].graphdef
    owners: dict[int, str] = {}
    for i, walked in enumerate(walks):
        check_equal(graphdef, walked.graphdef, "Layer 0", f"layer {i}")
        for path, x in walked.leaves():
            name = format_path(path, f"layers[{i}]")
            if isinstance(x, Variable) and owners.setdefault(id(x), name) != name:
                raise errors.AliasingError(
                    f"The layers share {an(type(x))}: {owners[id(x)]} is {name}. Each layer of a Stack has its own "
                    "values.",
                    "Pass copies (`liftnn.clone`), or pass what the layers share as an argument of their call.",
                )
    values = [{path: unwrap_raw(x) for path, x in walked.leaves()} for walked in walks]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *values)
    merged = vmap(
        lambda leaves: graphdef.merge(State.from_flat(leaves)),
        axis_size=len(layers),
        transform_metadata=transform_metadata,
    )
    return merged(stacked)


def check_equal(expected: GraphDef[Any], found: GraphDef[Any], one: str, other: str) -> None:
    """Raise StructureError if the structures of two layers differ.

    Args:
      expected: The structure of the one.
      found: The structure of the other.
      one: The one, as the subject of the message.
      other: The other.

    Raises:
      StructureError: If they differ; the message lists the differences by path.
    """
    if expected != found:
        lines = expected.diff(found).splitlines() or ["they are of different classes"]
        raise errors.StructureError(
            f"{one} and {other} differ in more than values:\n{list_paths(lines)}",
            "The layers of a Stack have the same class, attributes and shapes. Use a list for other layers.",
        )
