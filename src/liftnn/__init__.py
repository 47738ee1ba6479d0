"""liftnn: graph-aware wrappers over JAX's transforms, for stateful neural-network modules."""

import importlib as _importlib
import sys as _sys
from typing import TYPE_CHECKING

from liftnn import _pickled, _roles, errors
from liftnn._src.autodiff.grad import grad, value_and_grad
from liftnn._src.autodiff.selection import DiffState
from liftnn._src.compilation.jit import jit
from liftnn._src.filters import All, Any, Not, OfType, PathContains, WithTag
from liftnn._src.graph.graphdef import GraphDef, merge, split, state
from liftnn._src.graph.slots import Slot
from liftnn._src.lifting.contract import Plan, Result
from liftnn._src.lifting.lift import lift
from liftnn._src.modules.copies import clone, view, view_info, with_attributes
from liftnn._src.modules.iterate import iter_children, iter_graph, iter_modules
from liftnn._src.modules.module import Module
from liftnn._src.modules.update import update
from liftnn._src.modules.verbs import find_shared, pop, replace_all
from liftnn._src.prefixes.prefix import StateAxes, StateSharding
from liftnn._src.rngs import Rngs, RngStream
from liftnn._src.variables.annotated import with_metadata
from liftnn._src.variables.axis_rules import axis_rules
from liftnn._src.variables.eager_sharding import use_eager_sharding, using_eager_sharding
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import (
    BatchStat,
    Cache,
    Empty,
    Intermediate,
    LoRAParam,
    MetricState,
    OptState,
    Param,
    Perturbation,
    RngCount,
    RngKey,
    RngState,
)
from liftnn.errors import (
    AliasingError,
    ArgumentError,
    ArgumentTypeError,
    AttributeNameError,
    AttributeWarning,
    CaptureWarning,
    CheckpointError,
    DonatedError,
    FilterError,
    FilterWarning,
    LayerIndexError,
    LiftError,
    MissingPackageError,
    MissingRuleError,
    NameImportError,
    RetraceError,
    RetraceWarning,
    ShardingError,
    ShardingWarning,
    SharedWriteError,
    StructureError,
    StructureWarning,
    TraceContextError,
)

if TYPE_CHECKING:  # loaded at first use; see __getattr__
    from liftnn import initializers
    from liftnn._src.autodiff.custom_jvp import custom_jvp
    from liftnn._src.autodiff.custom_vjp import custom_vjp
    from liftnn._src.autodiff.fwd_and_bwd import fwd_and_bwd
    from liftnn._src.autodiff.jacobian import hessian, jacfwd, jacrev
    from liftnn._src.autodiff.jvp import jvp, linearize
    from liftnn._src.autodiff.remat import checkpoint, remat
    from liftnn._src.autodiff.vjp import vjp
    from liftnn._src.checkpoints.checkpoints import Checkpoints, restore, save, saved_steps
    from liftnn._src.checkpoints.restored import Restored
    from liftnn._src.compilation.checkify import checkify
    from liftnn._src.compilation.export import deserialize, export
    from liftnn._src.compilation.exported import Exported
    from liftnn._src.compilation.jaxpr import make_jaxpr
    from liftnn._src.compilation.shape import eval_shape
    from liftnn._src.compilation.trace_once import trace_once
    from liftnn._src.control_flow.associative_scan import associative_scan
    from liftnn._src.control_flow.branches import cond, switch
    from liftnn._src.control_flow.loop_axes import Carry
    from liftnn._src.control_flow.loops import fori_loop, while_loop
    from liftnn._src.control_flow.map import map
    from liftnn._src.control_flow.repeat import repeat
    from liftnn._src.control_flow.scan import scan
    from liftnn._src.intermediates import capture
    from liftnn._src.mapping.axis_metadata import PARTITION_NAME
    from liftnn._src.mapping.pmap import pmap
    from liftnn._src.mapping.shard_map import shard_map
    from liftnn._src.mapping.vmap import vmap
    from liftnn._src.metrics import Accuracy, Average, Metric, Statistics, Welford
    from liftnn._src.modules.recursive_map import recursive_map
    from liftnn._src.multi_metric import MultiMetric
    from liftnn._src.nn.activations import (
        celu,
        elu,
        gelu,
        glu,
        hard_sigmoid,
        hard_silu,
        hard_swish,
        hard_tanh,
        identity,
        leaky_relu,
        log_sigmoid,
        log_softmax,
        logsumexp,
        one_hot,
        relu,
        relu6,
        selu,
        sigmoid,
        silu,
        soft_sign,
        softmax,
        softplus,
        standardize,
        swish,
        tanh,
    )
    from liftnn._src.nn.attention import MultiHeadAttention
    from liftnn._src.nn.attention_masks import combine_masks, make_attention_mask, make_causal_mask
    from liftnn._src.nn.batch_norm import BatchNorm
    from liftnn._src.nn.bidirectional import Bidirectional
    from liftnn._src.nn.cells import GRUCell, RNNCellBase, SimpleCell
    from liftnn._src.nn.conv import Conv
    from liftnn._src.nn.conv_transpose import ConvTranspose
    from liftnn._src.nn.dot_product_attention import dot_product_attention, dot_product_attention_weights
    from liftnn._src.nn.dropout import Dropout
    from liftnn._src.nn.einsum import Einsum
    from liftnn._src.nn.embed import Embed
    from liftnn._src.nn.instance_norm import InstanceNorm
    from liftnn._src.nn.linear import Linear
    from liftnn._src.nn.linear_general import LinearGeneral
    from liftnn._src.nn.lora import LoRA, LoRALinear
    from liftnn._src.nn.lstm import LSTMCell, OptimizedLSTMCell
    from liftnn._src.nn.normalization import GroupNorm, LayerNorm, RMSNorm
    from liftnn._src.nn.pooling import avg_pool, max_pool, min_pool, pool
    from liftnn._src.nn.prelu import PReLU
    from liftnn._src.nn.rnn import RNN
    from liftnn._src.nn.rotary_embedding import rotary_embedding
    from liftnn._src.nn.sequential import Sequential
    from liftnn._src.nn.spectral_norm import SpectralNorm
    from liftnn._src.nn.stack import Stack
    from liftnn._src.nn.weight_norm import WeightNorm
    from liftnn._src.optim.ema import EMA
    from liftnn._src.optim.optimizer import Optimizer
    from liftnn._src.reseed import reseed
    from liftnn._src.sharding.constraint import with_logical_constraint
    from liftnn._src.sharding.declared import get_named_sharding, get_partition_spec, with_partitioning
    from liftnn._src.sharding.device_put import device_put
    from liftnn._src.sharding.on_mesh import abstract, make_sharded
    from liftnn._src.sharding.replicas import check_replicas
    from liftnn._src.split_rngs import fork_rngs, restore_rngs, split_rngs
    from liftnn._src.summary.public import count_params, display, draw, tabulate
    from liftnn._src.weights.functions import (
        from_equinox,
        from_flax,
        from_torch,
        load_weights,
        save_weights,
        to_torch,
    )
    from liftnn._src.weights.report import LoadReport
    from liftnn._src.weights.rule import Rule

__version__ = "0.1.0"

__all__ = [
    "EMA", "PARTITION_NAME", "RNN", "Accuracy", "AliasingError", "All", "Any", "ArgumentError",
    "ArgumentTypeError", "AttributeNameError", "AttributeWarning", "Average", "BatchNorm", "BatchStat", "Bidirectional",
    "Cache", "CaptureWarning", "Carry", "CheckpointError", "Checkpoints", "Conv", "ConvTranspose", "DiffState",
    "DonatedError", "Dropout", "Einsum", "Embed", "Empty", "Exported", "FilterError", "FilterWarning",
    "GRUCell", "GraphDef", "GroupNorm", "InstanceNorm", "Intermediate", "LSTMCell", "LayerIndexError",
    "LayerNorm", "LiftError", "Linear", "LinearGeneral", "LoRA", "LoRALinear", "LoRAParam", "LoadReport",
    "Metric", "MetricState", "MissingPackageError", "MissingRuleError", "Module", "MultiHeadAttention",
    "MultiMetric", "NameImportError", "Not", "OfType", "OptState", "OptimizedLSTMCell", "Optimizer", "PReLU", "Param",
    "PathContains", "Perturbation", "Plan", "RMSNorm", "RNNCellBase", "Restored", "Result",
    "RetraceError", "RetraceWarning", "RngCount", "RngKey", "RngState", "RngStream", "Rngs", "Rule",
    "Sequential", "ShardingError", "ShardingWarning", "SharedWriteError", "SimpleCell", "Slot",
    "SpectralNorm", "Stack", "State", "StateAxes", "StateSharding", "Statistics", "StructureError",
    "StructureWarning", "TraceContextError", "Variable", "WeightNorm", "Welford", "WithTag", "abstract",
    "associative_scan", "avg_pool", "axis_rules", "capture", "celu", "check_replicas", "checkify",
    "checkpoint", "clone", "combine_masks", "cond", "count_params", "custom_jvp", "custom_vjp",
    "deserialize", "device_put", "display", "dot_product_attention", "dot_product_attention_weights", "draw", "elu",
    "errors", "eval_shape", "export", "find_shared", "fori_loop", "fork_rngs", "from_equinox",
    "from_flax", "from_torch", "fwd_and_bwd", "gelu", "get_named_sharding", "get_partition_spec", "glu", "grad",
    "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "hessian", "identity", "initializers",
    "iter_children", "iter_graph", "iter_modules", "jacfwd", "jacrev", "jit", "jvp", "leaky_relu", "lift",
    "linearize", "load_weights", "log_sigmoid", "log_softmax", "logsumexp", "make_attention_mask",
    "make_causal_mask", "make_jaxpr", "make_sharded", "map", "max_pool", "merge", "min_pool", "one_hot",
    "pmap", "pool", "pop", "recursive_map", "relu", "relu6", "remat", "repeat", "replace_all", "reseed",
    "restore", "restore_rngs", "rotary_embedding", "save", "save_weights", "saved_steps", "scan", "selu",
    "shard_map", "sigmoid", "silu", "soft_sign", "softmax", "softplus", "split", "split_rngs",
    "standardize", "state", "swish", "switch", "tabulate", "tanh", "to_torch", "trace_once", "update",
    "use_eager_sharding", "using_eager_sharding", "value_and_grad", "view", "view_info", "vjp", "vmap",
    "while_loop", "with_attributes", "with_logical_constraint", "with_metadata", "with_partitioning",
]  # fmt: skip


_LOADED_AT_FIRST_USE = {
    "autodiff.custom_jvp": ("custom_jvp",),
    "autodiff.custom_vjp": ("custom_vjp",),
    "autodiff.fwd_and_bwd": ("fwd_and_bwd",),
    "autodiff.jacobian": ("hessian", "jacfwd", "jacrev"),
    "autodiff.jvp": ("jvp", "linearize"),
    "autodiff.remat": ("checkpoint", "remat"),
    "autodiff.vjp": ("vjp",),
    "checkpoints.checkpoints": ("Checkpoints", "restore", "save", "saved_steps"),
    "checkpoints.restored": ("Restored",),
    "compilation.checkify": ("checkify",),
    "compilation.export": ("deserialize", "export"),
    "compilation.exported": ("Exported",),
    "compilation.jaxpr": ("make_jaxpr",),
    "compilation.shape": ("eval_shape",),
    "compilation.trace_once": ("trace_once",),
    "control_flow.associative_scan": ("associative_scan",),
    "control_flow.branches": ("cond", "switch"),
    "control_flow.loop_axes": ("Carry",),
    "control_flow.loops": ("fori_loop", "while_loop"),
    "control_flow.map": ("map",),
    "control_flow.repeat": ("repeat",),
    "control_flow.scan": ("scan",),
    "intermediates": ("capture",),
    "mapping.axis_metadata": ("PARTITION_NAME",),
    "mapping.pmap": ("pmap",),
    "mapping.shard_map": ("shard_map",),
    "mapping.vmap": ("vmap",),
    "metrics": ("Accuracy", "Average", "Metric", "Statistics", "Welford"),
    "multi_metric": ("MultiMetric",),
    "modules.recursive_map": ("recursive_map",),
    "nn.activations": (
        "celu", "elu", "gelu", "glu", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "identity",
        "leaky_relu", "log_sigmoid", "log_softmax", "logsumexp", "one_hot", "relu", "relu6", "selu",
        "sigmoid", "silu", "soft_sign", "softmax", "softplus", "standardize", "swish", "tanh",
    ),
    "nn.attention": ("MultiHeadAttention",),
    "nn.attention_masks": ("combine_masks", "make_attention_mask", "make_causal_mask"),
    "nn.batch_norm": ("BatchNorm",),
    "nn.bidirectional": ("Bidirectional",),
    "nn.cells": ("GRUCell", "RNNCellBase", "SimpleCell"),
    "nn.conv": ("Conv",),
    "nn.conv_transpose": ("ConvTranspose",),
    "nn.dot_product_attention": ("dot_product_attention", "dot_product_attention_weights"),
    "nn.dropout": ("Dropout",),
    "nn.einsum": ("Einsum",),
    "nn.embed": ("Embed",),
    "nn.instance_norm": ("InstanceNorm",),
    "nn.linear": ("Linear",),
    "nn.linear_general": ("LinearGeneral",),
    "nn.lora": ("LoRA", "LoRALinear"),
    "nn.lstm": ("LSTMCell", "OptimizedLSTMCell"),
    "nn.normalization": ("GroupNorm", "LayerNorm", "RMSNorm"),
    "nn.pooling": ("avg_pool", "max_pool", "min_pool", "pool"),
    "nn.prelu": ("PReLU",),
    "nn.rnn": ("RNN",),
    "nn.rotary_embedding": ("rotary_embedding",),
    "nn.sequential": ("Sequential",),
    "nn.spectral_norm": ("SpectralNorm",),
    "nn.stack": ("Stack",),
    "nn.weight_norm": ("WeightNorm",),
    "optim.ema": ("EMA",),
    "optim.optimizer": ("Optimizer",),
    "reseed": ("reseed",),
    "sharding.constraint": ("with_logical_constraint",),
    "sharding.declared": ("get_named_sharding", "get_partition_spec", "with_partitioning"),
    "sharding.device_put": ("device_put",),
    "sharding.on_mesh": ("abstract", "make_sharded"),
    "sharding.replicas": ("check_replicas",),
    "split_rngs": ("fork_rngs", "restore_rngs", "split_rngs"),
    "summary.public": ("count_params", "display", "draw", "tabulate"),
    "weights.functions": (
        "from_equinox", "from_flax", "from_torch", "load_weights", "save_weights", "to_torch",
    ),
    "weights.report": ("LoadReport",),
    "weights.rule": ("Rule",),
}  # fmt: skip
"""The public names of files that `import liftnn` does not load, by file."""
_HOMES = {name: home for home, names in _LOADED_AT_FIRST_USE.items() for name in names}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name at its first use; from then on it is an ordinary attribute."""
        if name == "initializers":
            return _importlib.import_module("liftnn.initializers")
        if name not in _HOMES:
            try:
                raise _unknown_name(name)
            except Exception as error:
                error.__traceback__ = None  # it ends in the user's line
                raise
        home = _importlib.import_module(f"liftnn._src.{_HOMES[name]}")
        value = globals()[name] = getattr(home, name)
        return value


def _unknown_name(name: str) -> Exception:
    """Return the error for a name that liftnn does not have."""
    if name.startswith("_"):
        return AttributeError(f"module {__name__!r} has no attribute {name!r}")
    explain = _importlib.import_module("liftnn._src.foreign_names.explain")
    return explain.unknown_name(name, __all__, _sys._getframe(2))


def __dir__() -> list[str]:
    return [*__all__, "__all__", "__doc__", "__file__", "__name__", "__path__", "__version__"]


_roles.assign()
_pickled.publish(*(x for name, x in globals().items() if name in __all__))
