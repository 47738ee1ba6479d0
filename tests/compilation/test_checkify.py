"""`checkify`: the errors of `jax.experimental.checkify`, with modules among arguments and results."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import checkify

import liftnn
from tests.same import assert_same
from tests.user_modules import Affine

X = jnp.arange(1.0, 4.0)


def checked(model, x):
    """Updates the model and checks the argument."""
    y = model(x)
    checkify.check(jnp.all(x > 0), "x must be positive, but is {x}", x=x[0])
    model.note = "called"
    return y, model


def plain(x):
    checkify.check(jnp.all(x > 0), "x must be positive, but is {x}", x=x[0])
    return x


@pytest.mark.parametrize("wrap", [lambda f: f, liftnn.jit])
@pytest.mark.parametrize("x", [X, -X])
def test_the_error_is_that_of_jax_and_the_module_is_updated(wrap, x):
    model, reference = Affine(2.0), Affine(2.0)
    error, (y, returned) = wrap(liftnn.checkify(checked))(model, x)
    expected, _ = checkify.checkify(plain)(x)
    assert (error.get() or "").split("(")[0] == (expected.get() or "").split("(")[0]
    assert returned is model
    assert y.tolist() == reference(x).tolist()
    reference.note = "called"
    assert_same(model, reference)


def test_a_failed_check_is_thrown_as_jax_throws_it():
    error, _ = liftnn.checkify(checked)(Affine(), -X)
    with pytest.raises(checkify.JaxRuntimeError, match=r"x must be positive, but is -1\.0"):
        error.throw()


@pytest.mark.parametrize("name", ["float_checks", "nan_checks", "div_checks", "index_checks", "all_checks"])
def test_sets_of_checks_are_those_of_jax(name):
    errors = getattr(checkify, name)

    def f(w, x):
        return w[5] + jnp.log(-x) / (x - x)

    def ours(model, x):
        return f(model.w.value, x)

    error, _ = liftnn.checkify(ours, errors=errors)(Affine(), X)
    expected, _ = checkify.checkify(f, errors=errors)(Affine().w.value, X)
    assert expected.get() is not None
    assert error.get().partition(" at ")[0] == expected.get().partition(" at ")[0]


def test_it_works_around_jit_and_grad():
    def loss(model, x):
        checkify.check(jnp.all(x > 0), "negative")
        return model.loss(x)

    model, reference = Affine(2.0), Affine(2.0)
    error, grads = liftnn.checkify(liftnn.jit(liftnn.grad(loss)))(model, -X)
    assert "negative" in error.get()
    expected = liftnn.grad(Affine.loss)(reference, -X)
    assert grads["w"].value.tolist() == expected["w"].value.tolist()
    assert_same(model, reference)


def test_it_can_stand_inside_a_gradient():
    def loss(model, x):
        error, (y, _) = liftnn.checkify(checked)(model, x)
        return y.sum(), error

    model = Affine(2.0)
    grads, error = liftnn.grad(loss, has_aux=True)(model, -X)
    assert "positive" in error.get()
    assert grads["w"].value.tolist() == (-X).tolist()
    assert int(model.calls.value) == 1


def test_it_is_a_decorator_with_and_without_options_and_not_stale():
    scale = [1.0]

    @liftnn.checkify(errors=checkify.nan_checks)
    def f(x):
        return jnp.log(x * scale[0])

    assert f(X)[0].get() is None
    scale[0] = -1.0
    assert "nan" in f(X)[0].get()
    assert liftnn.checkify(jax.nn.relu)(X)[0].get() is None
