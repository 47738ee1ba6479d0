"""`make_jaxpr`: the jaxpr that JAX makes of the same function of arrays; modules stay as they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import liftnn
from tests.same import assert_same
from tests.user_modules import Affine, Holder, step

X = jnp.arange(3.0)


def test_it_is_the_jaxpr_of_the_same_function_of_arrays():
    def f(model, x):
        model.b.value = model.b - model.w * x
        return jnp.sin(x)

    def pure(w, b, calls, x):
        return jnp.sin(x), b - w * x

    model = Affine(2.0)
    actual = liftnn.make_jaxpr(f)(model, X)
    expected = jax.make_jaxpr(lambda *x: pure(*x)[::-1])(model.w.value, model.b.value, model.calls.value, X)
    assert len(actual.jaxpr.invars) == 4
    run = jax.extend.core.jaxpr_as_fun(actual)
    out, b = run(model.w.value, model.b.value, model.calls.value, X)
    np.testing.assert_array_equal(out, jnp.sin(X))
    np.testing.assert_array_equal(b, model.b - 2 * X)
    assert sorted(e.primitive.name for e in actual.jaxpr.eqns) == sorted(
        e.primitive.name for e in expected.jaxpr.eqns
    )


def test_inputs_and_outputs_stand_in_the_documented_order():
    model = Holder(w=liftnn.Param(jnp.ones(2)), scale=jnp.ones(3), b=liftnn.Param(jnp.ones(4)))
    model.tied = model.w

    def f(model, x):
        model.scale = jnp.zeros(6)
        model.new = liftnn.Param(jnp.ones(7))
        model.b.value = jnp.ones(8)
        return x

    jaxpr = liftnn.make_jaxpr(f)(model, jnp.ones(5))
    assert [x.shape for x in jaxpr.in_avals] == [(2,), (4,), (5,), (3,)]
    assert [x.shape for x in jaxpr.out_avals] == [(5,), (6,), (7,), (8,)]


def test_nothing_is_changed_in_the_module():
    model = Affine()

    def f(model, x):
        model.mode = "eval"
        model.new = liftnn.Param(x)
        return model(x), model

    jaxpr, (shape, copy) = liftnn.make_jaxpr(f, return_shape=True)(model, X)
    assert_same(model, Affine())
    assert shape == jax.ShapeDtypeStruct((3,), jnp.float32)
    assert copy is not model
    assert copy.new.value == shape
    assert len(jaxpr.out_avals) == 3


def test_options_are_those_of_jax():
    def f(k, x):
        assert type(k) is int
        return jax.lax.psum(x * k, "lanes")

    for make in (jax.make_jaxpr, liftnn.make_jaxpr):
        jaxpr, shape = make(f, 0, [("lanes", 4)], True)(2, X)
        assert "psum" in str(jaxpr)
        assert shape.shape == (3,)


def test_it_takes_what_a_jit_takes_and_is_not_stale():
    model = Affine(2.0)
    assert len(liftnn.make_jaxpr(model)(X).in_avals) == 4
    assert len(liftnn.make_jaxpr(liftnn.grad(Affine.loss))(model, X).out_avals) == 3
    assert "jit" in str(liftnn.make_jaxpr(liftnn.jit(step))(model, X))
    scale = [1.0]
    jaxpr = liftnn.make_jaxpr(lambda model, x: model.w * x * scale[0])
    first = str(jaxpr(model, X))
    scale[0] = 2.0
    assert str(jaxpr(model, X)) != first
