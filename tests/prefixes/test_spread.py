"""One Variable below two arguments: a prefix by filter is resolved at the path from each of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tests.user_modules import Holder

import liftnn
from liftnn import PathContains, StateAxes, StateSharding, errors

MESH = jax.make_mesh((1,), ("x",), axis_types=(AxisType.Auto,))
SPLIT = NamedSharding(MESH, P("x"))


def by_path(cls, here, elsewhere):
    return cls({PathContains("here"): here, ...: elsewhere})


def vmap(f, axes):
    return liftnn.vmap(f, in_axes=axes)


def scan(f, axes):
    return liftnn.scan(f, in_axes=axes, out_axes=0)


def shard_map(f, axes):
    specs = tuple([by_path(StateSharding, P("x"), P()) for _ in axes])
    return liftnn.shard_map(f, mesh=MESH, in_specs=specs, out_specs=P("x"))


def modules(shared, order):
    pair = Holder(here=shared), Holder(there=shared)
    return pair[:: -1 if order == "there first" else 1]


@pytest.mark.parametrize("order", ["here first", "there first"])
@pytest.mark.parametrize("transform", [vmap, scan, shard_map])
def test_two_arguments_that_give_a_variable_different_prefixes_are_refused(transform, order):
    axes = by_path(StateAxes, 0, None)
    paths = ("args[0].here", "args[1].there") if order == "here first" else ("args[0].there", "args[1].here")
    call = transform(lambda a, b: jnp.zeros(1), (axes, axes))
    with pytest.raises(errors.AliasingError) as caught:
        call(*modules(liftnn.Variable(jnp.arange(3.0)), order))
    assert str(caught.value).startswith(f"{paths[0]} and {paths[1]} are the same Variable")


@pytest.mark.parametrize("order", ["here first", "there first"])
@pytest.mark.parametrize("transform", [vmap, scan])
def test_two_arguments_may_give_a_variable_the_same_prefix(transform, order):
    shared, axes = liftnn.Variable(jnp.arange(3.0)), by_path(StateAxes, 0, 0)

    def double(a, b):
        (variable,) = {id(x): x for m in (a, b) for x in vars(m).values()}.values()
        variable.value = 2 * variable
        return variable.value

    assert transform(double, (axes, axes))(*modules(shared, order)).tolist() == [0, 2, 4]
    assert shared.value.tolist() == [0, 2, 4]


@pytest.mark.parametrize("order", ["here first", "there first"])
@pytest.mark.parametrize("other", [by_path(StateSharding, SPLIT, None), StateSharding({...: None}), None])
def test_no_sharding_below_one_argument_of_jit_leaves_that_of_the_other(order, other):
    shared = liftnn.Variable(jnp.arange(3.0))
    shardings = (by_path(StateSharding, SPLIT, None), other)[:: -1 if order == "there first" else 1]
    liftnn.jit(lambda a, b: None, in_shardings=shardings)(*modules(shared, order))
    assert shared.value.sharding == SPLIT
