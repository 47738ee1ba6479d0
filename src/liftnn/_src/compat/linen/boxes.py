"""Variables of Linen, with their boxes of metadata, as Variables of modules, and back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import struct
from flax.core import meta

from liftnn import errors
from liftnn._src.compat import sharding as sharding_of_flax
from liftnn._src.compat.traversals import flatten_mapping, unflatten_mapping
from liftnn._src.compat.variable_names import variable_name_from_type, variable_type_from_name
from liftnn._src.publish import publish
from liftnn._src.trees import Path, format_path
from liftnn._src.variables.variable import Variable

BRIDGE = "liftnn.compat.nnx.bridge"
"""The module that has what is public."""
_LINEN_TYPE = "linen_meta_type"
"""The metadata entry with the class of the box, as in Flax."""


class NNXMeta(struct.PyTreeNode, meta.AxisMetadata[Any]):
    """The box of a Variable's value among the variables of a Linen module, with the type and metadata of the Variable.

    Args:
      var_type: The type of the Variable.
      value: Its value.
      metadata: Its metadata.
    """

    var_type: type[Variable[Any]] = struct.field(pytree_node=False)
    value: Any = struct.field(pytree_node=True)
    metadata: dict[str, Any] = struct.field(pytree_node=False)

    def unbox(self) -> Any:
        """Return the value."""
        return self.value

    def replace_boxed(self, val: Any) -> NNXMeta:
        """Return a box of the same kind with another value."""
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict[Any, Any]) -> NNXMeta:
        """Return the box itself, as in Flax: Linen's transforms do not change the metadata."""
        return self

    def remove_axis(self, index: int, params: dict[Any, Any]) -> NNXMeta:
        """Return the box itself, as in Flax: Linen's transforms do not change the metadata."""
        return self

    def get_partition_spec(self) -> jax.sharding.PartitionSpec:
        """Return the PartitionSpec that the Variable declares."""
        return sharding_of_flax.get_partition_spec(self.to_nnx_variable()).value

    def to_nnx_variable(self) -> Variable[Any]:
        """Return the Variable."""
        return self.var_type(self.value, **self.metadata)


def variable_of(collection: str, x: Any) -> Variable[Any]:
    """Return the Variable that stands for a variable of Linen.

    Args:
      collection: The name of its collection, which gives the type; a new name gets a new type.
      x: Its value, or the box with the value and metadata.

    Returns:
      The Variable.

    Raises:
      StructureError: If the box is of a Variable of another type.
    """
    cls = variable_type_from_name(collection, allow_register=True)
    if isinstance(x, NNXMeta):
        if x.var_type is not cls:
            raise errors.StructureError(
                f"A {x.var_type.__name__} is in the collection {collection!r} of Linen, which is that of "
                f"{cls.__name__}.",
                "Register the name of the collection for one type, with nnx.register_variable_name.",
            )
        return x.to_nnx_variable()
    if isinstance(x, meta.AxisMetadata):
        return cls(**_metadata_of(x), **{_LINEN_TYPE: type(x)})
    return cls(x)


def _metadata_of(box: Any) -> dict[str, Any]:
    """Return the value and the metadata of a box of Linen, by the names that a Variable has for them."""
    box = copy.copy(box)  # Flax's own conversion changes some boxes
    return dict(box.to_nnx_metadata() if hasattr(box, "to_nnx_metadata") else vars(box))


def to_linen_var(variable: Variable[Any]) -> Any:
    """Return the value of a Variable as a variable of Linen: in a box if it has metadata.

    Args:
      variable: The Variable.

    Returns:
      The value, or a box: of the class that it came from, or else an `NNXMeta`.
    """
    value, metadata = variable.value, dict(variable.get_metadata())
    cls = metadata.pop(_LINEN_TYPE, None)
    if cls is not None:
        make = getattr(cls, "from_nnx_metadata", lambda entries: cls(**entries))
        return make({"value": value, **metadata})
    return NNXMeta(type(variable), value, metadata) if metadata else value


def unboxed(x: Any) -> Any:
    """Return the value of a variable of Linen, without its box."""
    return x.unbox() if isinstance(x, meta.AxisMetadata) else x


def variables_of(collections: Mapping[str, Any]) -> dict[Path, Variable[Any]]:
    """Return the Variables that stand for the variables of Linen, by their paths in their collections.

    Args:
      collections: The collections of variables by name, as `init` and `apply` of Linen return them.

    Returns:
      The Variables by path.

    Raises:
      StructureError: If two collections have a variable of one path: a module has one attribute for each.
    """
    found: dict[Path, Variable[Any]] = {}
    for name, variables in collections.items():
        for path, x in flatten_mapping(variables).items():
            if path in found:
                raise errors.StructureError(
                    f"The Linen module has two variables {format_path(path)}: in the collection {name!r}, and in that "
                    f"of {type(found[path]).__name__}. A module has one attribute for both.",
                    "Give one of them another name.",
                )
            found[path] = variable_of(name, x)
    return found


def collections_of(variables: Mapping[Path, Variable[Any]]) -> dict[str, Any]:
    """Return the collections of variables of Linen that Variables stand for; the inverse of `variables_of`."""
    names = {path: variable_name_from_type(type(x), allow_register=True) for path, x in variables.items()}
    return unflatten_mapping({(names[path], *path): to_linen_var(x) for path, x in variables.items()})


def with_partitioning(
    initializer: Callable[..., Any], sharding: Any, mesh: Any = None, **metadata: Any
) -> Callable[..., Any]:
    """Return an initializer whose result declares its sharding, which Linen gets as an `nn.Partitioned`.

    Args:
      initializer: The initializer.
      sharding: The mesh axis, or axes, of each axis of the array.
      mesh: The mesh. The default, None, is the current one.
      **metadata: Further metadata of the Variable.

    Returns:
      The initializer.
    """
    return sharding_of_flax.with_partitioning(
        initializer, sharding, mesh=mesh, **{_LINEN_TYPE: meta.Partitioned}, **metadata
    )


publish(NNXMeta, module=BRIDGE)
