"""Unique identifiers, as `flax.nnx.ids`."""

from liftnn._src.compat.identifiers import UUID, uuid

__all__ = [
    "UUID",
    "uuid",
]
