"""Zeros in place of None vary over the shards of a `shard_map` as their values do, or have their sharding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tests.user_modules import Affine

import liftnn

X = jnp.arange(1.0, 7.0).reshape(2, 3)


def call_all(f):
    """Map a function of a model and a row over stacked models and rows."""
    return liftnn.vmap(f)


@liftnn.custom_jvp
def tripled(model, x):
    """Write to the model, whose tangent is zero."""
    model.b.value = model.b + x
    return model.w * x


@tripled.defjvp
def _(primals, tangents):
    return tripled(*primals), 3 * tangents[1]


@liftnn.custom_jvp
def half_constant(model, x):
    return model.w * x, x * 2


@half_constant.defjvp
def _(primals, tangents):
    return half_constant(*primals), (3 * tangents[1], None)


@liftnn.custom_jvp
def of_arrays(x):
    return x * 2, x * 3


@of_arrays.defjvp
def _(primals, tangents):
    return of_arrays(*primals), (None, 5 * tangents[0])


def gradient(f):
    return lambda models, x: liftnn.grad(lambda m, x: call_all(f)(m, x).sum(), argnums=1)(models, x)


def pair(models, x):
    return call_all(lambda model, x: model(x))(models, x), 2 * x


COMPUTE = {
    "custom_jvp that writes": gradient(tripled),
    "tangent of None": gradient(lambda model, x: sum(half_constant(model, x))),
    "tangent of None, of arrays": lambda models, x: liftnn.grad(lambda x: sum(of_arrays(x)).sum())(x),
    "jvp": lambda models, x: liftnn.jvp(pair, (models, x), ({"w": models.w.value}, None))[1],
    "vjp": lambda models, x: liftnn.vjp(pair, models, x)[1]((x, None))[1],
    "vjp of a module": lambda models, x: liftnn.vjp(lambda m, x: (m, x), models, x)[1](
        ({"w": models.w.value}, x)
    )[1],
    "linearize": lambda models, x: liftnn.linearize(pair, models, x)[1](None, x),
}


@pytest.mark.parametrize("compute", COMPUTE.values(), ids=COMPUTE)
def test_a_derivative_in_shards_is_that_of_the_whole(compute):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    models, whole = [liftnn.vmap(Affine)(jnp.array([2.0, 3.0])) for _ in range(2)]
    specs = (P("data"), P("data"))
    found = liftnn.shard_map(compute, mesh=mesh, in_specs=specs, out_specs=P("data"))(models, X)
    expected = compute(whole, X)
    jax.tree.map(np.testing.assert_allclose, found, expected)
    jax.tree.map(np.testing.assert_allclose, liftnn.state(models), liftnn.state(whole))


@pytest.mark.parametrize("compile", [lambda f: f, liftnn.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("compute", COMPUTE.values(), ids=COMPUTE)
def test_a_derivative_on_explicit_axes_is_that_on_one_device(compute, compile):
    models, whole = [liftnn.vmap(Affine)(jnp.array([2.0, 3.0])) for _ in range(2)]
    expected = compute(whole, X)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        for variable in (models.w, models.b, models.calls):
            variable.value = jax.device_put(variable.value, P("data"))
        found = compile(compute)(models, jax.device_put(X, P("data")))
    jax.tree.map(np.testing.assert_allclose, found, expected)
    jax.tree.map(np.testing.assert_allclose, liftnn.state(models), liftnn.state(whole))


def test_a_pull_back_may_be_called_outside_of_the_mesh():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    model = liftnn.Module()
    with jax.set_mesh(mesh):
        model.w = liftnn.Param(jax.device_put(jnp.ones(2), P("data")))
        x = jax.device_put(jnp.arange(2.0), P("data"))
        pull_back = liftnn.jit(lambda model, x: liftnn.vjp(lambda m, x: (m.w * x, 3 * x), model, x)[1])(
            model, x
        )
    gradients, gradient_of_x = pull_back((None, jnp.ones(2)))
    np.testing.assert_allclose(gradients.w, jnp.zeros(2))
    np.testing.assert_allclose(gradient_of_x, 3 * jnp.ones(2))
