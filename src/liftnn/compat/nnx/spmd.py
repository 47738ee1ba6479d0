"""Declared shardings, as `flax.nnx.spmd`."""

from liftnn._src.compat.axis_names import add_axis, remove_axis
from liftnn._src.compat.modes import logical_axis_rules
from liftnn._src.compat.sharding import (
    as_abstract,
    eval_shape,
    get_abstract_model,
    get_named_sharding,
    get_partition_spec,
    get_var_pspec,
    with_partitioning,
)
from liftnn._src.mapping.axis_metadata import PARTITION_NAME

abstract_with_sharding = as_abstract

__all__ = [
    "PARTITION_NAME",
    "abstract_with_sharding",
    "add_axis",
    "as_abstract",
    "eval_shape",
    "get_abstract_model",
    "get_named_sharding",
    "get_partition_spec",
    "get_var_pspec",
    "logical_axis_rules",
    "remove_axis",
    "with_partitioning",
]
