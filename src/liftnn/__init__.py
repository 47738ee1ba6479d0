"""liftnn: graph-aware wrappers over JAX's transforms, for stateful neural-network modules."""

from liftnn.errors import (
    AliasingError as AliasingError,
    ArgumentError as ArgumentError,
    ArgumentTypeError as ArgumentTypeError,
    AttributeNameError as AttributeNameError,
    FilterError as FilterError,
    LiftError as LiftError,
    SharedWriteError as SharedWriteError,
    StructureError as StructureError,
    TraceContextError as TraceContextError,
)
from liftnn.filters import (
    All as All,
    AnyOf as Any,
    Not as Not,
    OfType as OfType,
    PathContains as PathContains,
    WithTag as WithTag,
)
from liftnn.graph.graphdef import (
    GraphDef as GraphDef,
    merge as merge,
    split as split,
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
from liftnn.graph.verbs import (
    clone as clone,
    find_shared as find_shared,
    iter_graph as iter_graph,
    pop as pop,
    replace_all as replace_all,
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
    Result as Result,
)
from liftnn.optim import (
    Optimizer as Optimizer,
)
from liftnn.rngs import (
    RngStream as RngStream,
    Rngs as Rngs,
    reseed as reseed,
    split_rngs as split_rngs,
)
from liftnn.transforms.grad import (
    DiffState as DiffState,
    grad as grad,
    value_and_grad as value_and_grad,
)
from liftnn.transforms.jit import (
    StateSharding as StateSharding,
    jit as jit,
)
from liftnn.transforms.shape import (
    eval_shape as eval_shape,
)
from liftnn.transforms.vmap import (
    vmap as vmap,
)

__version__ = "0.1.0"
