"""A stand-in for `flax.nnx`: `from liftnn.compat import nnx` in place of `from flax import nnx`.

It has all names of liftnn, and the conventions of Flax NNX where they differ: `split` returns the GraphDef first,
`state` the module's own Variables, `pop` deletes attributes. Names that only Flax has are here too. What liftnn cannot
support can be imported, and raises when it is used. See docs/coming_from/flax_nnx.md.
"""

import typing as _typing

import liftnn
from liftnn import *  # noqa: F403  # new names of liftnn are here by themselves
from liftnn import _pickled
from liftnn._src.compat.methods import add_methods as _add_methods
from liftnn._src.compat.prefixes import prefix
from liftnn._src.compat.unsupported import REASONS, unknown_name as _unknown_name, unsupported as _unsupported
from liftnn._src.tracebacks import boundary as _boundary
from liftnn.compat.nnx import (
    bridge,
    compat,
    filterlib,
    graph,
    graphlib,
    helpers,
    ids,
    module,
    nn,
    pytreelib,
    rnglib,
    spmd,
    statelib,
    summary,
    training,
    transforms,
    traversals,
    variablelib,
    visualization,
)
from liftnn.compat.nnx.filterlib import Everything, Nothing, PathContains
from liftnn.compat.nnx.graphlib import (
    GraphDef,
    GraphState,
    as_pure,
    cached_partial,
    call,
    clone,
    find_duplicates,
    flatten,
    graphdef,
    iter_children,
    iter_graph,
    iter_module_children,
    map,  # its name in Flax
    merge,
    pop,
    pure,
    recursive_map,
    set_graph_mode,
    set_graph_updates,
    set_metadata,
    split,
    state,
    to_tree,
    unflatten,
    unpack,
    update,
    variables,
    vars_as,
    with_vars,
)
from liftnn.compat.nnx.helpers import Dict, List, Sequential, TrainState
from liftnn.compat.nnx.module import M, Module, capture, iter_modules, view, view_info, with_attributes
from liftnn.compat.nnx.nn.attention import RoPE, dot_product_attention_with_rope
from liftnn.compat.nnx.nn.initializers import Initializer
from liftnn.compat.nnx.pytreelib import (
    Data,
    Object,
    Pytree,
    Static,
    check_pytree,
    data,
    dataclass,
    has_data,
    is_data,
    register_data_type,
    static,
)
from liftnn.compat.nnx.rnglib import fork_rngs, split_rngs, with_rngs
from liftnn.compat.nnx.spmd import (
    abstract_with_sharding,
    as_abstract,
    get_abstract_model,
    get_named_sharding,
    get_partition_spec,
    logical_axis_rules,
    with_partitioning,
)
from liftnn.compat.nnx.statelib import (
    FlatState,
    State,
    filter_state,
    from_flat_state,
    map_state,
    merge_state,
    replace_by_pure_dict,
    restore_int_paths,
    split_state,
    to_flat_state,
    to_pure_dict,
)
from liftnn.compat.nnx.summary import tabulate
from liftnn.compat.nnx.training import ema, metrics, optimizer
from liftnn.compat.nnx.training.ema import EMA
from liftnn.compat.nnx.training.metrics import Accuracy, Average, Metric, MultiMetric, Welford
from liftnn.compat.nnx.training.optimizer import ModelAndOptimizer, OptArray, Optimizer, OptVariable
from liftnn.compat.nnx.transforms.autodiff import custom_vjp, grad, jvp, remat, value_and_grad, vjp
from liftnn.compat.nnx.transforms.compilation import jit, jit_partial, shard_map
from liftnn.compat.nnx.transforms.iteration import fori_loop, pmap, scan, transform_metadata, vmap, while_loop
from liftnn.compat.nnx.transforms.transforms import checkify, cond, eval_shape, make_jaxpr, switch
from liftnn.compat.nnx.variablelib import (
    Variable,
    VariableMetadata,
    VariableState,
    register_variable_name,
    use_eager_sharding,
    using_eager_sharding,
    var_defaults,
    variable_name_from_type,
    variable_type_from_name,
)
from liftnn.compat.nnx.visualization import display

wrappers = bridge  # where Flax defines what the bridge has
A = _typing.TypeVar("A")
object = pytreelib  # noqa: A001  # its name in Flax
PureState: _typing.TypeAlias = tuple[GraphDef[A], State]

__all__ = [
    "EMA",
    "A",
    "Accuracy",
    "Average",
    "Data",
    "Dict",
    "Everything",
    "FlatState",
    "GraphDef",
    "GraphState",
    "Initializer",
    "List",
    "M",
    "Metric",
    "ModelAndOptimizer",
    "Module",
    "MultiMetric",
    "Nothing",
    "Object",
    "OptArray",
    "OptVariable",
    "Optimizer",
    "PathContains",
    "PureState",
    "Pytree",
    "RoPE",
    "Sequential",
    "State",
    "Static",
    "TrainState",
    "Variable",
    "VariableMetadata",
    "VariableState",
    "Welford",
    "abstract_with_sharding",
    "as_abstract",
    "as_pure",
    "bridge",
    "cached_partial",
    "call",
    "capture",
    "check_pytree",
    "checkify",
    "clone",
    "compat",
    "cond",
    "custom_vjp",
    "data",
    "dataclass",
    "display",
    "dot_product_attention_with_rope",
    "ema",
    "eval_shape",
    "filter_state",
    "filterlib",
    "find_duplicates",
    "flatten",
    "fori_loop",
    "fork_rngs",
    "from_flat_state",
    "get_abstract_model",
    "get_named_sharding",
    "get_partition_spec",
    "grad",
    "graph",
    "graphdef",
    "graphlib",
    "has_data",
    "helpers",
    "ids",
    "is_data",
    "iter_children",
    "iter_graph",
    "iter_module_children",
    "iter_modules",
    "jit",
    "jit_partial",
    "jvp",
    "logical_axis_rules",
    "make_jaxpr",
    "map",
    "map_state",
    "merge",
    "merge_state",
    "metrics",
    "module",
    "nn",
    "object",
    "optimizer",
    "pmap",
    "pop",
    "prefix",
    "pure",
    "pytreelib",
    "recursive_map",
    "register_data_type",
    "register_variable_name",
    "remat",
    "replace_by_pure_dict",
    "restore_int_paths",
    "rnglib",
    "scan",
    "set_graph_mode",
    "set_graph_updates",
    "set_metadata",
    "shard_map",
    "split",
    "split_rngs",
    "split_state",
    "spmd",
    "state",
    "statelib",
    "static",
    "summary",
    "switch",
    "tabulate",
    "to_flat_state",
    "to_pure_dict",
    "to_tree",
    "training",
    "transform_metadata",
    "transforms",
    "traversals",
    "unflatten",
    "unpack",
    "update",
    "use_eager_sharding",
    "using_eager_sharding",
    "value_and_grad",
    "var_defaults",
    "variable_name_from_type",
    "variable_type_from_name",
    "variablelib",
    "variables",
    "vars_as",
    "view",
    "view_info",
    "visualization",
    "vjp",
    "vmap",
    "while_loop",
    "with_attributes",
    "with_partitioning",
    "with_rngs",
    "with_vars",
]  # fmt: skip
__all__ += liftnn.__all__


@_boundary
def __getattr__(name: str) -> _typing.Any:
    if name in REASONS:
        return _unsupported(name)
    raise _unknown_name(__name__, name)


for _name in (
    "Accuracy",
    "Average",
    "Dict",
    "EMA",
    "GraphDef",
    "GraphState",
    "FlatState",
    "List",
    "Metric",
    "ModelAndOptimizer",
    "Module",
    "MultiMetric",
    "Optimizer",
    "PathContains",
    "RoPE",
    "Sequential",
    "TrainState",
    "Welford",
):
    _pickled.set_module(globals()[_name], __name__)
_add_methods()
