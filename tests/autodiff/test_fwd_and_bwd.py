"""`fwd_and_bwd` gives what `jax.fwd_and_bwd` gives, with a State for a module, and compiles each pass once."""

from __future__ import annotations

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises
from tests.user_modules import Affine, step

import liftnn
from liftnn import errors

X = jnp.array([1.0, -2.0, 3.0])
CT = jnp.array([1.0, 10.0, 100.0])


def of_arrays(w, x, *, power=1):
    return x**power * jnp.sin(w), (w, {"x": x})


@pytest.mark.parametrize("jitted", [True, False])
@pytest.mark.parametrize("argnums", [0, 1, -1, (0,), (1, 0), [0, 1], np.int64(1)])
def test_on_arrays_it_is_jaxs(argnums, jitted):
    results = {}
    squared = functools.partial(of_arrays, power=2)  # JAX 0.10 drops keyword arguments
    for of, f, keywords in ((jax, squared, {}), (liftnn, of_arrays, {"power": 2})):
        fwd, bwd = of.fwd_and_bwd(f, argnums, has_aux=True, jitted=jitted)
        out, residuals, aux = fwd(X, 2 * X, **keywords)
        results[of] = out, bwd(residuals, CT), aux
    expected, found = results[jax], results[liftnn]
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("jitted", [True, False])
def test_of_a_module_the_cotangent_is_a_state_and_the_forward_pass_updates_once(jitted):
    model = Affine(2.0)
    fwd, bwd = liftnn.fwd_and_bwd(step, (0, 1), jitted=jitted)
    out, residuals = fwd(model, X)
    expected, pull_back = jax.vjp(lambda w, b, x: x * w + b, model.w.value, model.b.value, X)
    assert out.tolist() == expected.tolist()
    for cotangent in (CT, -CT):
        of_model, of_x = bwd(residuals, cotangent)
        found = of_model["w"].value, of_model["b"].value, of_x
        assert [x.tolist() for x in found] == [x.tolist() for x in pull_back(cotangent)]
    assert int(model.calls.value) == 1


def test_each_pass_is_traced_once_for_all_weights():
    traces = {"fwd": 0, "bwd": 0}

    @liftnn.custom_vjp
    def scale(model, x):
        return model.w * x

    def forward(model, x):
        traces["fwd"] += 1
        return model.w * x, x

    def backward(x, cotangent):
        traces["bwd"] += 1
        return {"w": x * cotangent}, None

    scale.defvjp(forward, backward)
    fwd, bwd = liftnn.fwd_and_bwd(scale, argnums=0)
    first = {}
    for model in (Affine(2.0), Affine(5.0)):
        for x in (X, -X):
            model.w.value += 1.0
            out, residuals = fwd(model, x)
            assert out.tolist() == (model.w.value * x).tolist()
            assert bwd(residuals, CT)["w"].value.tolist() == (x * CT).tolist()
            first = first or dict(traces)
    assert traces == first


def test_argnums_may_be_an_iterator_as_in_jax():
    fwd, bwd = liftnn.fwd_and_bwd(lambda model, x: model.w * x, iter((0, 1)))
    theirs_fwd, theirs_bwd = jax.fwd_and_bwd(lambda w, x: w * x, iter((0, 1)))
    model = Affine(2.0)
    of_model, of_x = bwd(fwd(model, X)[1], CT)
    of_w, expected = theirs_bwd(theirs_fwd(model.w.value, X)[1], CT)
    assert (of_model["w"].value.tolist(), of_x.tolist()) == (of_w.tolist(), expected.tolist())


def test_a_captured_module_is_read_anew_and_written():
    model = Affine(2.0)
    fwd, bwd = liftnn.fwd_and_bwd(lambda x: step(model, x), argnums=0)
    for w in (2.0, 7.0):
        model.w.value = jnp.full(3, w)
        assert bwd(fwd(X)[1], CT).tolist() == (w * CT).tolist()
    assert int(model.calls.value) == 2


def test_the_module_of_a_bound_method_is_argument_0():
    model = Affine(2.0)
    fwd, bwd = liftnn.fwd_and_bwd(model, argnums=(0, 1), wrt=lambda path, x: path[-1] == "w")
    of_model, of_x = bwd(fwd(X)[1], CT)
    assert (list(of_model), of_model["w"].value.tolist()) == (["w"], (CT * X).tolist())
    assert of_x.tolist() == (2.0 * CT).tolist()


@pytest.mark.parametrize("jitted", [True, False])
@pytest.mark.parametrize("copied", [liftnn.clone, copy.deepcopy])
def test_a_copy_of_a_module_that_stores_the_passes_of_its_method_has_its_own(copied, jitted):
    model = Affine(2.0)
    model.forward, model.backward = liftnn.fwd_and_bwd(model.__call__, 1, jitted=jitted)
    other = copied(model)
    other.w.value = jnp.full(3, 5.0)
    out, residuals = other.forward(X)
    assert out.tolist() == (5 * X).tolist()
    assert other.backward(residuals, jnp.ones(3)).tolist() == [5.0] * 3
    assert (int(model.calls.value), int(other.calls.value)) == (0, 1)
    assert liftnn.jit(lambda other: other.forward(X)[0])(other).tolist() == (5 * X).tolist()
    assert (int(model.calls.value), int(other.calls.value)) == (0, 2)


def test_a_pipeline_of_two_stages_trains_as_one_program():
    first, second, whole = Affine(2.0), Affine(3.0), [Affine(2.0), Affine(3.0)]
    passes = [liftnn.fwd_and_bwd(lambda stage, x: jnp.tanh(stage(x)), argnums=(0, 1)) for _ in range(2)]
    hidden, residuals_1 = passes[0][0](first, X)
    out, residuals_2 = passes[1][0](second, hidden)
    of_second, of_hidden = passes[1][1](residuals_2, jnp.ones_like(out))
    of_first, _ = passes[0][1](residuals_1, of_hidden)
    expected = jax.grad(
        lambda w: jnp.tanh(jnp.tanh(X * w[0] + whole[0].b.value) * w[1] + whole[1].b.value).sum()
    )([stage.w.value for stage in whole])
    np.testing.assert_allclose(of_first["w"].value, expected[0], rtol=1e-5)
    np.testing.assert_allclose(of_second["w"].value, expected[1], rtol=1e-5)


def test_wrong_arguments_are_errors():
    with raises(
        errors.ArgumentTypeError,
        "`argnums` must be an int, a DiffState or a sequence of them, not 'w'.\n"
        "Pass the position of an argument, such as 0, or several, such as (0, liftnn.DiffState(1, filter)).",
    ):
        liftnn.fwd_and_bwd(step, "w")
    with raises(
        errors.ArgumentTypeError, "liftnn.fwd_and_bwd needs a function, not a float.\nPass a callable."
    ):
        liftnn.fwd_and_bwd(3.0, 0)
    with pytest.raises(errors.FilterError, match=r"no floating point Variable of args\[0\] matches"):
        liftnn.fwd_and_bwd(step, 0, wrt=liftnn.BatchStat)[0](Affine(2.0), X)
    fwd, bwd = liftnn.fwd_and_bwd(step, 0)
    with pytest.raises(errors.ArgumentError, match=r"is float32\[2\], but must be float32\[3\]"):
        bwd(fwd(Affine(2.0), X)[1], jnp.ones(2))
