"""Nested mappings and mappings by path, as `flax.nnx.traversals`."""

from liftnn._src.compat.traversals import empty_node, flatten_mapping, flatten_to_sequence, unflatten_mapping

__all__ = [
    "empty_node",
    "flatten_mapping",
    "flatten_to_sequence",
    "unflatten_mapping",
]
