"""States, as `flax.nnx.statelib`."""

from liftnn._src.compat.flat_state import FlatState, to_flat_state
from liftnn._src.compat.states import (
    diff,
    filter_state,
    from_flat_state,
    map_state,
    merge_state,
    replace_by_pure_dict,
    restore_int_paths,
    split_state,
    to_pure_dict,
)
from liftnn._src.variables.state import State

__all__ = [
    "FlatState",
    "State",
    "diff",
    "filter_state",
    "from_flat_state",
    "map_state",
    "merge_state",
    "replace_by_pure_dict",
    "restore_int_paths",
    "split_state",
    "to_flat_state",
    "to_pure_dict",
]
