"""Errors of declared shardings: what does not fit a mesh, and rules that are not rules."""

from __future__ import annotations

import contextlib
from unittest import mock

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

import liftnn
from liftnn import errors
from liftnn._src.sharding import agreement
from tests.messages.registry import message

MESH = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
FIT = (
    "Declare axes of the mesh, or map the declared names to them with rules (`liftnn.axis_rules`); the size of an "
    "array along an axis must be a multiple of the number of devices over which it is sharded."
)
RULES = 'Write them as {"hidden": "model", "batch": ("data", "fsdp"), "embed": None}.'


def linear(*sharding, sizes=(8, 4)):
    """A layer with a kernel that declares a sharding."""
    return liftnn.Linear(*sizes, kernel_metadata={"sharding": sharding}, rngs=liftnn.Rngs(0))


class Block(liftnn.Module):
    """A module with layers in a list and in an attribute."""

    def __init__(self, *sharding):
        self.layers = [linear(*sharding) for _ in range(2)]
        self.out = liftnn.Sequential(liftnn.identity)


@message(
    errors.ShardingError,
    "A sharding does not fit the mesh ('data': 4, 'model': 2):",
    "  kernel (a Param of shape (8, 4)), ('data', 'mlp'): 'mlp' is not an axis of the mesh, and no rule maps it to one",
    FIT,
)
def declared_axis_that_the_mesh_lacks():
    liftnn.get_named_sharding(linear("data", "mlp"), MESH)


@message(
    errors.ShardingError,
    "A sharding does not fit the mesh ('data': 4, 'model': 2):",
    "  kernel (a Param of shape (8, 4)), (None, 'mlp') -> P(None, 'tensor'): the rules map 'mlp' to 'tensor', which is "
    "not an axis of the mesh",
    FIT,
)
def rule_for_an_axis_that_the_mesh_lacks():
    liftnn.get_named_sharding(linear(None, "mlp"), MESH, {"mlp": "tensor"})


@message(
    errors.ShardingError,
    "3 shardings do not fit the mesh ('data': 4, 'model': 2):",
    "  [0].kernel (a Param of shape (6, 4)), ('data',): axis 0 of size 6 cannot be divided into 4 equal shards over "
    "'data'",
    "  [1].kernel (a Param of shape (8, 4)), ('data', 'data'): the mesh axis 'data' shards axes 0 and 1",
    "  [2].x (a Param of shape ()), ('model',): it has 1 entry, and the array has no axes",
    FIT,
)
def all_declared_shardings_that_do_not_fit():
    scalar = {"x": liftnn.Param(jnp.zeros(()), sharding=("model",))}
    tree = [linear("data", sizes=(6, 4)), linear("data", "data"), scalar]
    liftnn.get_named_sharding(tree, MESH)


@message(
    errors.ShardingError,
    "A sharding does not fit the mesh ('data': 4, 'model': 2):",
    "  layers[...].kernel (a Param of shape (8, 4)), ('heads',): 'heads' is not an axis of the mesh, and no rule "
    "maps it to one",
    FIT,
)
def declared_axis_that_the_mesh_lacks_when_the_module_is_created():
    with jax.set_mesh(MESH):
        Block("heads")


@message(
    errors.ShardingError,
    "2 shardings do not fit the mesh ('data': 4, 'model': 2):",
    "  [0].layers[0].kernel (a Param of shape (8, 4)), ('heads',): 'heads' is not an axis of the mesh, and no rule "
    "maps it to one",
    "  [0].layers[1].kernel (a Param of shape (8, 4)), ('heads',): 'heads' is not an axis of the mesh, and no rule "
    "maps it to one",
    FIT,
)
def all_declared_axes_that_the_mesh_lacks_before_anything_is_created():
    liftnn.make_sharded(lambda: (Block("heads"),), MESH)


@message(
    errors.ShardingError,
    "A sharding does not fit the mesh ('data': 4, 'model': 2):",
    "  a Param of shape (8,), ('data',): its array is committed to other devices, by "
    "SingleDeviceSharding(device=CpuDevice(id=3), memory_kind=device); move it first, with `jax.device_put`",
    FIT,
)
def declared_sharding_of_an_array_that_is_committed_elsewhere():
    with jax.set_mesh(MESH):
        liftnn.Param(jax.device_put(jnp.ones(8), jax.devices()[3]), sharding=("data",))


@message(
    errors.ShardingError,
    "A sharding does not fit the mesh ('data': 4, 'model': 2):",
    "  x.y (an array of shape (3, 2)), ('batch', None) -> P('data', None): axis 0 of size 3 cannot be divided into 4 "
    "equal shards over 'data'",
    FIT,
)
def constraint_that_does_not_fit():
    with liftnn.axis_rules({"batch": "data"}, MESH):
        liftnn.with_logical_constraint({"x": jnp.ones((4, 2)), "y": jnp.ones((3, 2))}, ("batch", None))


@message(
    errors.ArgumentTypeError,
    "with_logical_constraint takes a tuple with one entry for each axis, not 'batch'.",
    'Pass a tuple, such as ("batch", None).',
)
def constraint_by_text():
    liftnn.with_logical_constraint(jnp.ones(4), "batch")


@message(
    errors.ArgumentError,
    "The rules map the axis 'embed' twice: to 'data' and to None.",
    "Keep one of the two rules.",
)
def two_rules_for_one_name():
    liftnn.axis_rules([("embed", "data"), ("embed", None)])


@message(
    errors.ArgumentTypeError,
    "Axis rules must map names to mesh axes, as a mapping or as pairs, but got a str.",
    RULES,
)
def rules_that_are_text():
    liftnn.get_partition_spec(linear("data"), "data")


@message(
    errors.ArgumentTypeError,
    "Axis rules must map names to mesh axes, as a mapping or as pairs, but one of them is 'data'.",
    RULES,
)
def rules_that_are_not_pairs():
    liftnn.axis_rules(["data"])


@message(
    errors.ArgumentTypeError,
    "Axis rules must map names to mesh axes, as a mapping or as pairs, but one of them is 'embed': 3.",
    RULES,
)
def rule_for_a_number():
    liftnn.axis_rules({"embed": 3})


@message(
    errors.ArgumentTypeError,
    "use_eager_sharding takes True or False, not a str.",
    "Pass a bool.",
)
def eager_sharding_by_text():
    liftnn.use_eager_sharding("yes")


@message(
    errors.TraceContextError,
    "The mesh ('data': 4, 'model': 2) cannot be set inside a transform.",
    "Set it around the call of the transformed function.",
)
def mesh_inside_a_transform():
    liftnn.jit(lambda: liftnn.axis_rules({}, MESH).__enter__())()


@message(
    errors.ArgumentError,
    "make_sharded needs a mesh, but there is no current one.",
    'Pass `jax.make_mesh((4, 2), ("data", "model"))`, or use `jax.set_mesh`.',
)
def make_sharded_without_a_mesh():
    liftnn.make_sharded(lambda: linear("data"))


@message(
    errors.ArgumentTypeError,
    "abstract takes a function that creates modules, not a Linear.",
    "Pass a function without arguments, such as `lambda: Model(liftnn.Rngs(0))`.",
)
def abstract_of_a_module_that_exists():
    liftnn.abstract(linear("data"), MESH)


@message(
    errors.StructureError,
    "The processes do not hold the same modules:",
    "  rate: process 0 has 0.1, process 1 has 0.5",
    "Create the modules in the same way in each process, with the same seeds; only the data may differ.",
)
def modules_that_differ_between_processes():
    with second_process(lambda report: report._replace(texts={**report.texts, "rate": "0.5"})):
        liftnn.check_replicas(liftnn.Dropout(0.1))


@message(
    errors.ShardingError,
    "make_sharded succeeded here, but failed in another process:",
    "  process 1: ShardingError: 'model' is not an axis of the mesh",
    "Create the modules in the same way in each process, with the same seeds; only the data may differ.",
)
def modules_that_another_process_cannot_create():
    failure = ("ShardingError", "'model' is not an axis of the mesh")
    with second_process(lambda report: report._replace(failure=failure)):
        liftnn.make_sharded(lambda: linear("data"), MESH)


@message(
    errors.StructureError,
    "The processes have called different functions: process 0 has check_replicas, process 1 has save.",
    "Call the functions of liftnn that create, save, restore or compare modules in the same order in each process.",
)
def functions_that_differ_between_processes():
    with second_process(lambda report: report._replace(function="save")):
        liftnn.check_replicas(liftnn.Dropout(0.1))


@contextlib.contextmanager
def second_process(change):
    """Let a second process report what `change` makes of the report of this one."""

    def exchange(report, devices):
        return {0: report, 1: change(report)}

    with (
        mock.patch.object(agreement, "_first_devices", return_value={0: None, 1: None}),
        mock.patch.object(agreement, "_exchange", exchange),
    ):
        yield


@message(
    errors.ShardingError,
    "A sharding does not fit the mesh ('data': 4, 'model': 2):",
    "  kernel (a Param of shape (6, 4)), ('rows', None): axis 0 of size 6 cannot be divided into 8 equal shards over "
    "'rows' of its own mesh ('rows': 8)",
    FIT,
)
def declared_sharding_that_does_not_fit_a_mesh_of_its_own():
    own = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    init = liftnn.with_partitioning(liftnn.initializers.zeros, ("rows", None), mesh=own)
    liftnn.make_sharded(lambda: liftnn.Linear(6, 4, kernel_init=init, rngs=liftnn.Rngs(0)), MESH)


@message(
    errors.ShardingError,
    "These arrays cannot be moved:",
    "  kernel (a Param of shape (3, 4)), P('data',) on the mesh ('data': 4, 'model': 2): axis 0 of size 3 "
    "cannot be divided into 4 equal shards over 'data'",
    FIT,
)
def device_put_to_a_sharding_that_does_not_fit():
    rows = jax.sharding.NamedSharding(MESH, jax.P("data"))
    liftnn.device_put(
        linear(None, None, sizes=(3, 4)),
        liftnn.StateSharding({liftnn.PathContains("kernel"): rows, ...: None}),
    )
