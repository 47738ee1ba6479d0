"""What only JAX compares, shardings on explicit axes and the axes that a value varies over: its errors name paths."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, reshard

import liftnn


def mesh_of(kind):
    return jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind,) * 2)


class Holder(liftnn.Module):
    def __init__(self, value):
        self.before = liftnn.Variable(jnp.ones(3))
        self.value = liftnn.Variable(value)


def replicate(holder, *_):
    holder.before.value = 2 * holder.before
    holder.value.value = reshard(holder.value.value, jax.P(None, None))
    return holder


def leave(holder):
    return holder


CALLS = {
    "scan": (
        lambda f, m: liftnn.scan(lambda m, x: (f(m), x))(m, jnp.ones(3)),
        r"component args\[0\]\.value has",
    ),
    "scan of a captured module": (
        lambda f, m: liftnn.scan(lambda c, x: (f(m) and c, x))(1.0, jnp.ones(3)),
        "component m.value has",
    ),
    "while_loop": (
        lambda f, m: liftnn.while_loop(lambda m: m.before[0] < 9, f, m),
        "component init_val.value has",
    ),
    "fori_loop": (lambda f, m: liftnn.fori_loop(0, 3, lambda i, m: f(m), m), "component init_val.value has"),
    "fori_loop with a traced bound": (
        lambda f, m: liftnn.jit(lambda m, n: liftnn.fori_loop(0, n, lambda i, m: f(m), m))(m, 3),
        "component init_val.value has",
    ),
    "cond": (
        lambda f, m: liftnn.cond(jnp.array(True), f, leave, m),
        r"true_fun is replicate at .*\nfalse_fun is leave at (.|\n)*true_fun at operands\[0\]\.value \(a Variable\)",
    ),
    "switch": (
        lambda f, m: liftnn.switch(jnp.array(0), [f, leave], m),
        r"at operands\[0\]\.value \(a Variable\) has",
    ),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", CALLS)
def test_a_sharding_that_changes_in_a_loop_or_in_one_branch_is_told_by_path(name):
    call, message = CALLS[name]
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh):
        m = Holder(jax.device_put(jnp.ones((4, 4)), NamedSharding(mesh, jax.P("data", None))))
        with pytest.raises(TypeError, match=message):
            call(replicate, m)
        assert jax.typeof(m.value.value).sharding.spec == jax.P("data", None)
        assert m.before[0] == 1


@pytest.mark.parametrize("name", ["scan", "while_loop", "fori_loop"])
def test_a_value_that_starts_to_vary_over_a_mesh_axis_in_a_loop_is_told_by_path(name):
    call, message = CALLS[name]

    def one(m, x):
        def step(m):
            m.before.value = 2 * m.before
            m.value.value = m.value + x
            return m

        call(step, m)
        return m.value.value

    mapped = liftnn.shard_map(
        one, mesh=mesh_of(AxisType.Auto), in_specs=(jax.P(), jax.P("data")), out_specs=jax.P("data")
    )
    with pytest.raises(TypeError, match=f"{message} type float32"):
        mapped(Holder(jnp.ones((1, 4))), jnp.ones((2, 4)))


def test_a_loop_and_a_branch_that_keep_the_sharding_do_what_plain_python_does():
    mesh = mesh_of(AxisType.Explicit)

    def double(m, *_):
        m.value.value = 2 * m.value
        return m

    with jax.set_mesh(mesh):
        for name, (call, _) in CALLS.items():
            m = Holder(jax.device_put(jnp.ones((4, 4)), NamedSharding(mesh, jax.P("data", None))))
            if name != "while_loop":
                call(double, m)
                assert np.asarray(m.value.value)[0, 0] == (2 if name in ("cond", "switch") else 8), name
                assert jax.typeof(m.value.value).sharding.spec == jax.P("data", None)
