"""Functions on trees of modules, as `flax.nnx.graphlib`."""

from liftnn._src.compat.flat_state import FlatState
from liftnn._src.compat.graph import (
    as_pure,
    clone,
    find_duplicates,
    flatten,
    map,
    set_metadata,
    unflatten,
    unpack,
    update,
    with_vars,
)
from liftnn._src.compat.graph_state import GraphState
from liftnn._src.compat.iterate import iter_children, iter_graph, iter_module_children, recursive_map
from liftnn._src.compat.modes import set_graph_mode, set_graph_updates
from liftnn._src.compat.partials import cached_partial
from liftnn._src.compat.pop import pop
from liftnn._src.compat.splitting import GraphDef, call, graphdef, merge, split, state, variables
from liftnn._src.compat.states import map_state, to_tree
from liftnn._src.graph.kinds import is_object
from liftnn._src.trees import Key, Path
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable

is_node = is_graph_node = is_object
pure = as_pure
vars_as = with_vars
PathParts = Path

__all__ = [
    "FlatState",
    "GraphDef",
    "GraphState",
    "Key",
    "PathParts",
    "State",
    "Variable",
    "as_pure",
    "cached_partial",
    "call",
    "clone",
    "find_duplicates",
    "flatten",
    "graphdef",
    "is_graph_node",
    "is_node",
    "iter_children",
    "iter_graph",
    "iter_module_children",
    "map",
    "map_state",
    "merge",
    "pop",
    "pure",
    "recursive_map",
    "set_graph_mode",
    "set_graph_updates",
    "set_metadata",
    "split",
    "state",
    "to_tree",
    "unflatten",
    "unpack",
    "update",
    "variables",
    "vars_as",
    "with_vars",
]
