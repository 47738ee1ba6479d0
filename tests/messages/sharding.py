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
    "`in_specs` has 'x', which is no spec.",
    "A spec is a jax.sharding.PartitionSpec; of a module also StateSharding.",
)
def spec_that_is_text():
    sharded(step, (P(), "x"))


@message(
    errors.ArgumentError,
    "args[0].w (a Param) has the spec P('y',), but 'y' is no axis that shard_map splits over: 'x'.",
    "Correct the spec, `mesh` or `axis_names`.",
)
def unknown_mesh_axis():
    sharded(step, (P("y"), P()))(Affine(), X)


@message(
    errors.ArgumentError,
    "args[0].calls (a Variable) cannot be sharded by P('x',): its shape is (), and the spec has 1 entries.",
    "Give it another spec in `in_specs`; StateSharding tells the Variables of a module apart.",
)
def scalar_variable_sharded():
    sharded(step, (P("x"), P()))(Affine(size=4), X)


@message(
    errors.ArgumentError,
    "args[1].x cannot be sharded by P('x',): its shape is (3,), and axis 0 would have 2 shards.",
    "Give it another spec in `in_specs`; StateSharding tells the Variables of a module apart.",
)
def argument_that_cannot_be_divided():
    sharded(lambda model, batch: None, (P(), P("x")))(Affine(), {"x": jnp.ones(3)})


@message(
    errors.ArgumentError,
    "the output[1] has the shape () in each shard, which is too short for the spec P('x',).",
    "Correct the spec in `out_specs` or, for what belongs to an argument, in `in_specs`.",
)
def scalar_output_sharded():
    sharded(lambda model, x: (x, x.sum()), (P(), P("x")), P("x"))(Affine(), X)


@message(
    errors.ArgumentError,
    "the output.sum has the spec P(), so all shards along 'x' must return the same, but they differ.",
    "Name the axis in `out_specs`, or reduce the value over it (for example with `jax.lax.pmean`).",
)
def output_that_differs_between_shards():
    def reduce(model, x):
        return {"max": jax.lax.pmax(x, "x"), "sum": x.sum()}

    sharded(reduce, (P(), P("x")), P())(Affine(), X)


@message(
    errors.SharedWriteError,
    "args[0].mean (a BatchStat) has the spec P(), so all shards along 'x' must write the same, but they differ.",
    REDUCE,
)
def replicated_batch_norm():
    layer = liftnn.BatchNorm(1, rngs=liftnn.Rngs(0))
    sharded(step, (P(), P("x")), P("x"))(layer, X[:, None])


@message(
    errors.SharedWriteError,
    "args[0].seen[0] (an Intermediate) has the spec P(), so all shards along 'x' must be given the same, but they "
    "differ.",
    REDUCE,
)
def sow_into_a_replicated_module():
    def sow(model, x):
        model.seen = [liftnn.Intermediate(x)]

    sharded(sow, (P(), P("x")))(Affine(), X)


@message(
    errors.AliasingError,
    "args[0].w and args[1].w are the same Param, but the one has the prefix P('x',) and the other P().",
    "Give both places the same prefix, or pass `liftnn.clone(module)` in one of them.",
)
def one_variable_with_two_specs():
    w = liftnn.Param(X)
    sharded(lambda a, b: None, (P("x"), P()))(Holder(w=w), Holder(w=w))


# --- pmap


@message(
    errors.ArgumentError,
    "liftnn.pmap needs a device for each lane: there are 9 lanes and 8 devices.",
    "Map fewer lanes, or use liftnn.vmap, with which one device runs several.",
)
def more_lanes_than_devices():
    liftnn.pmap(lambda x: x)(jnp.ones(9))


@message(
    errors.ArgumentError,
    "liftnn.pmap was called where another mesh has the devices: in a pmap, a shard_map or jax.set_mesh.",
    "Use liftnn.shard_map with an axis of that mesh, or liftnn.vmap.",
)
def pmap_in_pmap():
    liftnn.pmap(liftnn.pmap(lambda x: x))(jnp.ones((2, 2)))
