"""liftnn: graph-aware wrappers over JAX's transforms, for stateful neural-network modules."""

from liftnn.errors import (
    AliasingError as AliasingError,
)
from liftnn.errors import (
    ArgumentError as ArgumentError,
)
from liftnn.errors import (
    ArgumentTypeError as ArgumentTypeError,
)
from liftnn.errors import (
    AttributeNameError as AttributeNameError,
)
from liftnn.errors import (
    FilterError as FilterError,
)
from liftnn.errors import (
    LiftError as LiftError,
)
from liftnn.errors import (
    SharedWriteError as SharedWriteError,
)
from liftnn.errors import (
    StructureError as StructureError,
)
from liftnn.errors import (
    TraceContextError as TraceContextError,
)
from liftnn.filters import (
    All as All,
)
from liftnn.filters import (
    Any as Any,
)
from liftnn.filters import (
    Not as Not,
)
from liftnn.filters import (
    OfType as OfType,
)
from liftnn.filters import (
    PathContains as PathContains,
)
from liftnn.filters import (
    WithTag as WithTag,
)
from liftnn.graph.graphdef import (
    GraphDef as GraphDef,
)
from liftnn.graph.graphdef import (
    merge as merge,
)
from liftnn.graph.graphdef import (
    split as split,
)
from liftnn.graph.graphdef import (
    state as state,
)
from liftnn.graph.module import (
    Module as Module,
)
from liftnn.graph.state import (
    State as State,
)
from liftnn.graph.variable import (
    Variable as Variable,
)
from liftnn.graph.variable_types import (
    BatchStat as BatchStat,
)
from liftnn.graph.variable_types import (
    Cache as Cache,
)
from liftnn.graph.variable_types import (
    Empty as Empty,
)
from liftnn.graph.variable_types import (
    Intermediate as Intermediate,
)
from liftnn.graph.variable_types import (
    MetricState as MetricState,
)
from liftnn.graph.variable_types import (
    OptState as OptState,
)
from liftnn.graph.variable_types import (
    Param as Param,
)
from liftnn.graph.variable_types import (
    Perturbation as Perturbation,
)
from liftnn.graph.variable_types import (
    RngCount as RngCount,
)
from liftnn.graph.variable_types import (
    RngKey as RngKey,
)
from liftnn.graph.variable_types import (
    RngState as RngState,
)
from liftnn.graph.verbs import (
    clone as clone,
)
from liftnn.graph.verbs import (
    find_shared as find_shared,
)
from liftnn.graph.verbs import (
    iter_graph as iter_graph,
)
from liftnn.graph.verbs import (
    pop as pop,
)
from liftnn.graph.verbs import (
    replace_all as replace_all,
)
from liftnn.graph.verbs import (
    update as update,
)
from liftnn.lifting.lift import (
    lift as lift,
)
from liftnn.lifting.prefix import (
    StateAxes as StateAxes,
)
from liftnn.lifting.result import (
    Plan as Plan,
)
from liftnn.lifting.result import (
    Result as Result,
)
from liftnn.metrics import (
    Accuracy as Accuracy,
)
from liftnn.metrics import (
    Average as Average,
)
from liftnn.metrics import (
    Metric as Metric,
)
from liftnn.metrics import (
    MultiMetric as MultiMetric,
)
from liftnn.metrics import (
    Statistics as Statistics,
)
from liftnn.metrics import (
    Welford as Welford,
)
from liftnn.nn import initializers as initializers
from liftnn.nn.activations import (
    celu as celu,
)
from liftnn.nn.activations import (
    elu as elu,
)
from liftnn.nn.activations import (
    gelu as gelu,
)
from liftnn.nn.activations import (
    glu as glu,
)
from liftnn.nn.activations import (
    hard_sigmoid as hard_sigmoid,
)
from liftnn.nn.activations import (
    hard_silu as hard_silu,
)
from liftnn.nn.activations import (
    hard_swish as hard_swish,
)
from liftnn.nn.activations import (
    hard_tanh as hard_tanh,
)
from liftnn.nn.activations import (
    identity as identity,
)
from liftnn.nn.activations import (
    leaky_relu as leaky_relu,
)
from liftnn.nn.activations import (
    log_sigmoid as log_sigmoid,
)
from liftnn.nn.activations import (
    log_softmax as log_softmax,
)
from liftnn.nn.activations import (
    logsumexp as logsumexp,
)
from liftnn.nn.activations import (
    one_hot as one_hot,
)
from liftnn.nn.activations import (
    relu as relu,
)
from liftnn.nn.activations import (
    relu6 as relu6,
)
from liftnn.nn.activations import (
    selu as selu,
)
from liftnn.nn.activations import (
    sigmoid as sigmoid,
)
from liftnn.nn.activations import (
    silu as silu,
)
from liftnn.nn.activations import (
    soft_sign as soft_sign,
)
from liftnn.nn.activations import (
    softmax as softmax,
)
from liftnn.nn.activations import (
    softplus as softplus,
)
from liftnn.nn.activations import (
    standardize as standardize,
)
from liftnn.nn.activations import (
    swish as swish,
)
from liftnn.nn.activations import (
    tanh as tanh,
)
from liftnn.nn.batch_norm import (
    BatchNorm as BatchNorm,
)
from liftnn.nn.conv import (
    Conv as Conv,
)
from liftnn.nn.conv_transpose import (
    ConvTranspose as ConvTranspose,
)
from liftnn.nn.dropout import (
    Dropout as Dropout,
)
from liftnn.nn.einsum import (
    Einsum as Einsum,
)
from liftnn.nn.embed import (
    Embed as Embed,
)
from liftnn.nn.linear import (
    Linear as Linear,
)
from liftnn.nn.linear_general import (
    LinearGeneral as LinearGeneral,
)
from liftnn.nn.normalization import (
    GroupNorm as GroupNorm,
)
from liftnn.nn.normalization import (
    LayerNorm as LayerNorm,
)
from liftnn.nn.normalization import (
    RMSNorm as RMSNorm,
)
from liftnn.nn.pooling import (
    avg_pool as avg_pool,
)
from liftnn.nn.pooling import (
    max_pool as max_pool,
)
from liftnn.nn.pooling import (
    min_pool as min_pool,
)
from liftnn.nn.pooling import (
    pool as pool,
)
from liftnn.nn.prelu import (
    PReLU as PReLU,
)
from liftnn.nn.sequential import (
    Sequential as Sequential,
)
from liftnn.optim import (
    Optimizer as Optimizer,
)
from liftnn.rngs import (
    Rngs as Rngs,
)
from liftnn.rngs import (
    RngStream as RngStream,
)
from liftnn.rngs import (
    reseed as reseed,
)
from liftnn.rngs import (
    split_rngs as split_rngs,
)
from liftnn.transforms.grad import (
    DiffState as DiffState,
)
from liftnn.transforms.grad import (
    grad as grad,
)
from liftnn.transforms.grad import (
    value_and_grad as value_and_grad,
)
from liftnn.transforms.jit import (
    StateSharding as StateSharding,
)
from liftnn.transforms.jit import (
    jit as jit,
)
from liftnn.transforms.shape import (
    eval_shape as eval_shape,
)
from liftnn.transforms.vmap import (
    vmap as vmap,
)

__version__ = "0.1.0"
