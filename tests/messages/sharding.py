"""Errors of shardings and specs: `shard_map`, `pmap`, declared shardings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec as P

import liftnn
from liftnn import errors
from tests.messages.registry import message
from tests.user_modules import Affine, Holder, step

MESH = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))
X = jnp.arange(4.0)
REDUCE = (
    "Shard the Variable as well (`in_specs`, `StateSharding`), or reduce the value before writing it (for example with "
    "`jax.lax.pmean`)."
)


def sharded(f, in_specs, out_specs=None):
    """A function on two devices."""
    return liftnn.shard_map(f, mesh=MESH, in_specs=in_specs, out_specs=out_specs)


@message(
    errors.ArgumentTypeError,
    "`in_specs` contains 'x', which is not a spec.",
    "A spec is a jax.sharding.PartitionSpec; for a module it may also be a liftnn.StateSharding.",
)
def spec_that_is_text():
    sharded(step, (P(), "x"))


@message(
    errors.ArgumentError,
    "args[0].w (a Param) has the spec P('y',), but 'y' is not a mesh axis of this shard_map. Its axes are: 'x'.",
    "Use one of these axes in the spec, or pass a `mesh` and `axis_names` with this axis.",
)
def unknown_mesh_axis():
    sharded(step, (P("y"), P()))(Affine(), X)


@message(
    errors.ArgumentError,
    "out_specs[1] has the spec P('y',), but 'y' is not a mesh axis of this shard_map. Its axes are: 'x'.",
    "Use one of these axes in the spec, or pass a `mesh` and `axis_names` with this axis.",
)
def unknown_mesh_axis_of_the_output():
    sharded(lambda model, x: (x, x), (P(), P()), (P(), P("y")))(Affine(), X)


@message(
    errors.ArgumentError,
    "`split_rngs` is 'y', but the axes of this shard_map are: 'x'.",
    "Name some of these axes, or pass True for all of them.",
)
def unknown_mesh_axis_of_random_numbers():
    f = liftnn.shard_map(lambda rngs: rngs(), mesh=MESH, in_specs=P(), out_specs=P(), split_rngs="y")
    f(liftnn.Rngs(0))


@message(
    errors.ArgumentError,
    "args[0].calls (a Variable) cannot be sharded by P('x',): its shape is (), and the spec has length 1.",
    "Use another spec for it in `in_specs`; a liftnn.StateSharding gives each Variable of a module its own spec.",
)
def scalar_variable_sharded():
    sharded(step, (P("x"), P()))(Affine(size=4), X)


@message(
    errors.ArgumentError,
    "args[1].x cannot be sharded by P('x',): its shape is (3,), and axis 0 cannot be divided into 2 equal shards.",
    "Use another spec for it in `in_specs`; a liftnn.StateSharding gives each Variable of a module its own spec.",
)
def argument_that_cannot_be_divided():
    sharded(lambda model, batch: None, (P(), P("x")))(Affine(), {"x": jnp.ones(3)})


@message(
    errors.ArgumentError,
    "Cannot apply the spec P('x',) to the output[1]: its shape in each shard is ().",
    "Use a spec of at most length 0 in `out_specs` or, for a part of an argument, in `in_specs`.",
)
def scalar_output_sharded():
    sharded(lambda model, x: (x, x.sum()), (P(), P("x")), P("x"))(Affine(), X)


@message(
    errors.ArgumentError,
    "The spec P() of the output.sum requires all shards along 'x' to return the same value, but they differ.",
    "Name the axis in `out_specs`, or reduce the value over it (for example with `jax.lax.pmean`).",
)
def output_that_differs_between_shards():
    def reduce(model, x):
        return {"max": jax.lax.pmax(x, "x"), "sum": x.sum()}

    sharded(reduce, (P(), P("x")), P())(Affine(), X)


@message(
    errors.SharedWriteError,
    "The spec P() of args[0].mean (a BatchStat) requires all shards along 'x' to write the same value, but they "
    "differ.",
    REDUCE,
)
def replicated_batch_norm():
    layer = liftnn.BatchNorm(1, rngs=liftnn.Rngs(0))
    sharded(step, (P(), P("x")), P("x"))(layer, X[:, None])


@message(
    errors.SharedWriteError,
    "The spec P() of args[0].seen[0] (an Intermediate) requires all shards along 'x' to attach the same value, but "
    "they differ.",
    REDUCE,
)
def sow_into_a_replicated_module():
    def sow(model, x):
        model.seen = [liftnn.Intermediate(x)]

    sharded(sow, (P(), P("x")))(Affine(), X)


@message(
    errors.AliasingError,
    "args[0].w and args[1].w are the same Param, but they have different prefixes: P('x',) and P().",
    "Use the same prefix for both, or pass `liftnn.clone(module)` for one of them.",
)
def one_variable_with_two_specs():
    w = liftnn.Param(X)
    sharded(lambda a, b: None, (P("x"), P()))(Holder(w=w), Holder(w=w))


# --- pmap


@message(
    errors.ArgumentError,
    "liftnn.pmap needs one device for each slice: the axis size is 9, but there are 8 devices.",
    "Map an axis of a smaller size, or use liftnn.vmap, which runs several slices on one device.",
)
def more_lanes_than_devices():
    liftnn.pmap(lambda x: x)(jnp.ones(9))


@message(
    errors.ArgumentError,
    "liftnn.pmap was called where a mesh is already in use: inside a pmap, a shard_map or jax.set_mesh.",
    "Use liftnn.shard_map with an axis of that mesh, or liftnn.vmap.",
)
def pmap_in_pmap():
    liftnn.pmap(liftnn.pmap(lambda x: x))(jnp.ones((2, 2)))


@message(
    errors.ArgumentError,
    "The rules map the axis 'rows' to 'x', and the metadata `sharding_rules` of a Variable to 'y'.",
    "Use the same rule in both, or another name in one of them.",
)
def rules_that_differ():
    w = liftnn.Param(jnp.ones((2, 2)), sharding=("rows", None), sharding_rules={"rows": "y"})
    liftnn.get_partition_spec(w, {"rows": "x"})


@message(
    errors.ShardingError,
    "The mapped axes of a vmap must all be sharded over the same axis of the mesh:",
    "  args[0].kernel (a Param): sharded over 'x'",
    "  args[0].bias (a Param): sharded over None",
    "Declare the axis for all of them (with `transform_metadata`, a Variable needs a declared sharding to get it, such "
    "as `(None,)`), or reshard the others with `jax.sharding.reshard`.",
)
def stacked_layers_of_which_only_the_kernel_declares_an_axis():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Explicit,))

    @liftnn.vmap(transform_metadata={liftnn.PARTITION_NAME: "x"})
    def make(seed):
        return liftnn.Linear(4, 4, kernel_metadata={"sharding": (None, None)}, rngs=liftnn.Rngs(seed))

    with jax.set_mesh(mesh):
        model = liftnn.make_sharded(lambda: make(jnp.arange(2)), mesh)
        liftnn.vmap(lambda model: model.kernel.sum())(model)


@message(
    errors.ArgumentTypeError,
    "device_put takes a device or a sharding, not 'cpu'.",
    "Pass a device, such as `jax.devices('cpu')[0]`.",
)
def device_put_to_a_name():
    liftnn.device_put(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), "cpu")
