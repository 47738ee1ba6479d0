"""liftnn: graph-aware wrappers over JAX's transforms, for stateful neural-network modules."""

from liftnn._src.autodiff.custom_jvp import (
    custom_jvp as custom_jvp,
)
from liftnn._src.autodiff.custom_vjp import (
    custom_vjp as custom_vjp,
)
from liftnn._src.autodiff.grad import (
    grad as grad,
    value_and_grad as value_and_grad,
)
from liftnn._src.autodiff.jacobian import (
    hessian as hessian,
    jacfwd as jacfwd,
    jacrev as jacrev,
)
from liftnn._src.autodiff.jvp import (
    jvp as jvp,
    linearize as linearize,
)
from liftnn._src.autodiff.remat import (
    checkpoint as checkpoint,
    remat as remat,
)
from liftnn._src.autodiff.selection import DiffState as DiffState
from liftnn._src.autodiff.vjp import (
    vjp as vjp,
)
from liftnn._src.compilation.checkify import (
    checkify as checkify,
)
from liftnn._src.compilation.export import (
    deserialize as deserialize,
    export as export,
)
from liftnn._src.compilation.exported import (
    Exported as Exported,
)
from liftnn._src.compilation.jaxpr import (
    make_jaxpr as make_jaxpr,
)
from liftnn._src.compilation.jit import (
    jit as jit,
)
from liftnn._src.compilation.shape import (
    eval_shape as eval_shape,
)
from liftnn._src.control_flow.associative_scan import (
    associative_scan as associative_scan,
)
from liftnn._src.control_flow.branches import (
    cond as cond,
    switch as switch,
)
from liftnn._src.control_flow.loop_axes import Carry as Carry
from liftnn._src.control_flow.loops import (
    fori_loop as fori_loop,
    while_loop as while_loop,
)
from liftnn._src.control_flow.map import (
    map as map,
)
from liftnn._src.control_flow.scan import (
    scan as scan,
)
from liftnn._src.filters import (
    All as All,
    Any as Any,
    Not as Not,
    OfType as OfType,
    PathContains as PathContains,
    WithTag as WithTag,
)
from liftnn._src.graph.graphdef import (
    GraphDef as GraphDef,
    merge as merge,
    split as split,
    state as state,
)
from liftnn._src.graph.slots import Slot as Slot
from liftnn._src.lifting.lift import (
    lift as lift,
)
from liftnn._src.lifting.result import (
    Plan as Plan,
    Result as Result,
)
from liftnn._src.mapping.axis_metadata import PARTITION_NAME as PARTITION_NAME
from liftnn._src.mapping.pmap import pmap as pmap
from liftnn._src.mapping.shard_map import (
    shard_map as shard_map,
)
from liftnn._src.mapping.vmap import (
    vmap as vmap,
)
from liftnn._src.metrics import (
    Accuracy as Accuracy,
    Average as Average,
    Metric as Metric,
    MultiMetric as MultiMetric,
    Statistics as Statistics,
    Welford as Welford,
)
from liftnn._src.modules.module import Module as Module
from liftnn._src.modules.verbs import (
    clone as clone,
    find_shared as find_shared,
    iter_graph as iter_graph,
    pop as pop,
    replace_all as replace_all,
    update as update,
)
from liftnn._src.nn import initializers as initializers
from liftnn._src.nn.activations import (
    celu as celu,
    elu as elu,
    gelu as gelu,
    glu as glu,
    hard_sigmoid as hard_sigmoid,
    hard_silu as hard_silu,
    hard_swish as hard_swish,
    hard_tanh as hard_tanh,
    identity as identity,
    leaky_relu as leaky_relu,
    log_sigmoid as log_sigmoid,
    log_softmax as log_softmax,
    logsumexp as logsumexp,
    one_hot as one_hot,
    relu as relu,
    relu6 as relu6,
    selu as selu,
    sigmoid as sigmoid,
    silu as silu,
    soft_sign as soft_sign,
    softmax as softmax,
    softplus as softplus,
    standardize as standardize,
    swish as swish,
    tanh as tanh,
)
from liftnn._src.nn.batch_norm import (
    BatchNorm as BatchNorm,
)
from liftnn._src.nn.conv import (
    Conv as Conv,
)
from liftnn._src.nn.conv_transpose import (
    ConvTranspose as ConvTranspose,
)
from liftnn._src.nn.dropout import (
    Dropout as Dropout,
)
from liftnn._src.nn.einsum import (
    Einsum as Einsum,
)
from liftnn._src.nn.embed import (
    Embed as Embed,
)
from liftnn._src.nn.linear import (
    Linear as Linear,
)
from liftnn._src.nn.linear_general import (
    LinearGeneral as LinearGeneral,
)
from liftnn._src.nn.normalization import (
    GroupNorm as GroupNorm,
    LayerNorm as LayerNorm,
    RMSNorm as RMSNorm,
)
from liftnn._src.nn.pooling import (
    avg_pool as avg_pool,
    max_pool as max_pool,
    min_pool as min_pool,
    pool as pool,
)
from liftnn._src.nn.prelu import (
    PReLU as PReLU,
)
from liftnn._src.nn.sequential import (
    Sequential as Sequential,
)
from liftnn._src.optim import (
    Optimizer as Optimizer,
)
from liftnn._src.prefixes.by_filter import StateAxes as StateAxes, StateSharding as StateSharding
from liftnn._src.rngs import (
    Rngs as Rngs,
    RngStream as RngStream,
    reseed as reseed,
    split_rngs as split_rngs,
)
from liftnn._src.sharding import (
    get_named_sharding as get_named_sharding,
    get_partition_spec as get_partition_spec,
    with_partitioning as with_partitioning,
)
from liftnn._src.variables.state import State as State
from liftnn._src.variables.variable import Variable as Variable
from liftnn._src.variables.variable_types import (
    BatchStat as BatchStat,
    Cache as Cache,
    Empty as Empty,
    Intermediate as Intermediate,
    MetricState as MetricState,
    OptState as OptState,
    Param as Param,
    Perturbation as Perturbation,
    RngCount as RngCount,
    RngKey as RngKey,
    RngState as RngState,
)
from liftnn.errors import (
    AliasingError as AliasingError,
    ArgumentError as ArgumentError,
    ArgumentTypeError as ArgumentTypeError,
    AttributeNameError as AttributeNameError,
    DonatedError as DonatedError,
    FilterError as FilterError,
    LiftError as LiftError,
    RetraceError as RetraceError,
    RetraceWarning as RetraceWarning,
    SharedWriteError as SharedWriteError,
    StructureError as StructureError,
    TraceContextError as TraceContextError,
)

__version__ = "0.1.0"
