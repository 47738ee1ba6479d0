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
