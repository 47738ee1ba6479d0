"""`with_logical_constraint`: activations are where the names of their axes say, in Auto and Explicit meshes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import liftnn

MESHES = [
    jax.make_mesh((4, 2), ("data", "model"), axis_types=(t,) * 2) for t in (AxisType.Auto, AxisType.Explicit)
]
X = jnp.arange(32.0).reshape(8, 4)


@pytest.mark.sample(2)
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("around", [lambda f: f, jax.jit, liftnn.jit])
def test_an_array_is_sharded_by_rules_given_or_current(mesh, around):
    rules = {"batch": "data", "features": "model"}
    constrain = around(lambda x: liftnn.with_logical_constraint(x, ("batch", "features")))
    with liftnn.axis_rules(rules, mesh):
        y = constrain(X)
    with jax.set_mesh(mesh):
        z = around(lambda x: liftnn.with_logical_constraint(x, ("batch", "features"), rules))(X)
    for each in (y, z):
        assert each.sharding.is_equivalent_to(NamedSharding(mesh, P("data", "model")), 2)
        np.testing.assert_array_equal(each, X)


def test_without_a_mesh_nothing_happens():
    assert liftnn.with_logical_constraint(X, ("anything", "else")) is X


def test_a_mesh_may_be_given_and_a_tree_of_arrays_and_a_variable_may_be_constrained():
    mesh = MESHES[0]
    y = liftnn.with_logical_constraint({"a": X, "b": liftnn.Param(X)}, P("data"), mesh=mesh)
    for each in y.values():
        assert each.sharding.is_equivalent_to(NamedSharding(mesh, P("data")), 2)


def test_an_unconstrained_axis_is_left_to_the_compiler():
    mesh = MESHES[0]
    x = jax.device_put(X, NamedSharding(mesh, P(None, "model")))
    names = ("data", P.UNCONSTRAINED)
    y = jax.jit(lambda x: liftnn.with_logical_constraint(x, names, mesh=mesh))(x)
    assert y.sharding.is_equivalent_to(NamedSharding(mesh, P("data", "model")), 2)


@pytest.mark.thorough
@pytest.mark.parametrize("mesh", MESHES)
def test_in_vmap_grad_and_shard_map_the_values_are_those_of_the_plain_call(mesh):
    def f(x):
        return (liftnn.with_logical_constraint(x, ("data", "model")) ** 2).sum()

    with jax.set_mesh(mesh):
        np.testing.assert_array_equal(jax.grad(f)(X), 2 * X)
        np.testing.assert_array_equal(jax.vmap(f)(jnp.stack([X, X])), [f(X), f(X)])
        x = jax.device_put(X, NamedSharding(mesh, P("data", "model")))
        shards = jax.shard_map(
            lambda x: liftnn.with_logical_constraint(x, ("data", "model")),
            in_specs=P("data", "model"),
            out_specs=P("data", "model"),
        )(x)
        np.testing.assert_array_equal(shards, X)
