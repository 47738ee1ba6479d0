"""States, as `flax.nnx.statelib`."""

from liftnn._src.compat.flat_state import FlatState, to_flat_state
from liftnn._src.compat.states import (
    create_path_filters,
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
from liftnn._src.trees import Key, Path
from liftnn._src.variables.state import State

PathParts = Path

__all__ = [
    "FlatState",
    "Key",
    "PathParts",
    "State",
    "create_path_filters",
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
