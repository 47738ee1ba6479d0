"""What is known to be wrong only when a function has returned is told at the line of the function that did it."""

from __future__ import annotations

import functools
import traceback

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.raising import caught, entries
from tests.user_modules import Affine

X = jnp.linspace(-1.0, 1.0, 3)


def write_twice(model, x):
    model.w.value = x * jnp.ones(3)
    write_w(model, x)


def write_w(model, x):
    model.w.value = (
        model.w * x  # the statement has two lines
    )


def normalize(model, x):
    model.norm(x[None])


def write_under_jit(model, x):
    liftnn.jit(write_w)(model, x)


def write_by_update(model, x):
    state = liftnn.state(model, liftnn.Param)
    liftnn.update(model, jax.tree.map(lambda w: w * x, state))


def combine(model, a, b):
    model.calls.value = model.calls + 1
    return a + b


LANES = jnp.ones((2, 3))
MESH = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))


def by_vmap(f):
    model = Affine()
    model.norm = liftnn.BatchNorm(3, rngs=liftnn.Rngs(0))
    return lambda: liftnn.vmap(f, in_axes=(None, 0))(model, LANES)


def by_shard_map(f):
    return lambda: liftnn.shard_map(f, mesh=MESH, in_specs=(jax.P(), jax.P("i")), out_specs=jax.P())(
        Affine(), X
    )


LATE = {
    "vmap": (by_vmap(write_w), "write_w"),
    "the last write": (by_vmap(write_twice), "write_w"),
    "a layer": (by_vmap(normalize), "normalize"),
    "a transform inside": (by_vmap(write_under_jit), "write_under_jit"),
    "update": (by_vmap(write_by_update), "write_by_update"),
    "shard_map": (by_shard_map(write_w), "write_w"),
    "map": (
        lambda: liftnn.map(functools.partial(write_w, Affine()), LANES, batch_size=2),
        "write_w",
    ),
    "associative_scan": (
        lambda: liftnn.associative_scan(functools.partial(combine, Affine()), LANES),
        "combine",
    ),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", LATE)
def test_a_write_that_turns_out_wrong_on_return_raises_at_its_line(name):
    call, function = LATE[name]
    error = caught(call)
    assert type(error) is liftnn.SharedWriteError
    assert [name for _, name in entries(error)] == ["caught", "<lambda>", function]
    assert error.__cause__ is None


def test_the_line_of_such_a_write_is_shown_whole():
    error = caught(LATE["vmap"][0])
    last = traceback.format_tb(error.__traceback__)[-1].splitlines()
    assert last[1:] == ["    model.w.value = ("]


def test_a_backward_pass_that_captures_raises_where_it_does():
    model = Affine()
    function = liftnn.custom_vjp(lambda x: x)

    def backward(_, ct):
        return (ct * model.w,)

    function.defvjp(lambda x: (x, None), backward)
    error = caught(liftnn.grad(lambda x: function(x).sum()), X)
    assert type(error) is liftnn.TraceContextError
    assert entries(error)[-1] == (__file__, "backward")
