"""Declared shardings, as `flax.nnx.spmd`."""

from liftnn._src.compat.modes import logical_axis_rules
from liftnn._src.compat.sharding import (
    as_abstract,
    get_abstract_model,
    get_named_sharding,
    get_partition_spec,
    with_partitioning,
)
from liftnn._src.mapping.axis_metadata import PARTITION_NAME

abstract_with_sharding = as_abstract

__all__ = [
    "PARTITION_NAME",
    "abstract_with_sharding",
    "as_abstract",
    "get_abstract_model",
    "get_named_sharding",
    "get_partition_spec",
    "logical_axis_rules",
    "with_partitioning",
]
