"""`jvp` and `linearize` give the outputs and tangents that JAX gives, with States for modules; effects happen once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine, Holder, Pair, step

import liftnn
from liftnn import errors

X = jnp.array([1.0, -2.0, 3.0])
T = jnp.array([1.0, 10.0, 100.0])
FLOAT0 = np.zeros((), jax.dtypes.float0)


def plain(p, x):
    return jnp.tanh(x * p["w"] + p["b"])


def params_of(model):
    return {"w": model.w.value, "b": model.b.value}


def tanh(model, x):
    return jnp.tanh(model(x))


def by_jvp(f, primals, tangents, **options):
    return liftnn.jvp(f, primals, tangents, **options)


def by_linearize(f, primals, tangents, **options):
    out, push, *aux = liftnn.linearize(f, *primals, **options)
    return out, push(*tangents), *aux


WAYS = pytest.mark.parametrize("way", [by_jvp, by_linearize], ids=["jvp", "linearize"])


@WAYS
@pytest.mark.parametrize("tangents", [(T, -T, 2 * T), (None, T, None), (T, None, None), (None, None, T)])
def test_output_and_tangent_are_jaxs(way, tangents):
    model = Affine(2.0)
    of_w, of_b, of_x = tangents
    given = liftnn.State({"w": liftnn.Param(of_w)}) if of_w is not None else liftnn.State()
    given |= liftnn.State({"b": liftnn.Param(of_b)}) if of_b is not None else liftnn.State()
    out, tangent = way(tanh, (model, X), (given, of_x))
    zero = jnp.zeros(3)
    full = [zero if t is None else t for t in tangents]
    expected = jax.jvp(plain, (params_of(model), X), ({"w": full[0], "b": full[1]}, full[2]))
    np.testing.assert_allclose(out, expected[0], rtol=1e-6)
    np.testing.assert_allclose(tangent, expected[1], rtol=1e-5, atol=1e-6)
    assert int(model.calls.value) == 1


@WAYS
def test_a_tangent_of_a_module_is_a_state_a_module_or_a_dict(way):
    as_module = liftnn.clone(Pair())
    as_module.first.w.value, as_module.first.b.value, as_module.second.b.value = T, X, 0 * T
    as_state = liftnn.State.from_flat({("second", "w"): liftnn.Param(T), ("first", "b"): X})
    as_dict = {"first": {"w": T, "b": liftnn.Param(X)}, "second": {"b": None}}
    mixed = {"first": liftnn.State({"w": T, "b": X}), "second": None}
    found = [
        way(step, (Pair(), X), (given, None))[1].tolist() for given in (as_module, as_state, as_dict, mixed)
    ]
    w, b = jnp.full(3, 2.0), jnp.zeros(3)
    _, expected = jax.jvp(lambda w, b: (X * w + b) * w, (w, b), (T, X))
    assert found == [expected.tolist()] * 4


@WAYS
def test_the_module_of_a_bound_method_may_have_a_tangent(way):
    model = Affine(2.0)
    assert way(model, (X,), (T,))[1].tolist() == (2 * T).tolist()
    assert way(model, (X,), ({"w": T}, None))[1].tolist() == (T * X).tolist()
    assert way(model.loss, (X,), ({"b": T}, None))[1].tolist() == float((2 * 2 * X * T).sum())
    assert int(model.calls.value) == 3


@WAYS
def test_the_tangent_of_the_output_is_its_tree_with_states(way):
    def f(model, x):
        model.w.value = model.w * x
        new = Holder(scale=x * 3, pair=[liftnn.BatchStat(x), 7], n=liftnn.Param(jnp.arange(2)))
        return {"model": model, "new": new, "w": model.w, "n": jnp.arange(2), "text": "text", "none": None}

    model = Affine(2.0)
    out, tangent = way(f, (model, X), ({"b": T}, T))
    assert out["model"] is model
    assert out["w"] is model.w
    assert (tangent["text"], tangent["none"]) == (None, None)
    assert tangent["n"].dtype == jax.dtypes.float0
    assert type(tangent["model"]["w"]) is liftnn.Param
    assert tangent["model"]["w"].value.tolist() == (2 * T).tolist()
    assert tangent["model"]["b"].value.tolist() == T.tolist()
    assert list(tangent["model"]) == ["w", "b"]
    assert tangent["new"]["scale"].tolist() == (3 * T).tolist()
    assert type(tangent["new"]["pair"][0]) is liftnn.BatchStat
    assert list(tangent["new"].flat()) == [("scale",), ("pair", 0)]
    model_first = way(lambda m, x: (m.w, m), (model, X), (None, T))[1]
    assert isinstance(model_first[0], liftnn.Param)
    assert list(model_first[1]) == ["b"]


@WAYS
def test_a_variable_can_be_the_argument_and_hold_a_pytree(way):
    v = liftnn.Param({"a": X, "n": jnp.arange(2), "text": "text"}, tag="mine")

    def f(v):
        v.value = {**v.value, "a": v.value["a"] * 2}
        return v

    for given in (liftnn.Param({"a": T, "n": None, "text": "text"}), {"a": T, "n": None, "text": "text"}):
        _, tangent = way(f, (v,), (given,))
        assert (type(tangent), tangent.tag) == (liftnn.Param, "mine")
        assert tangent.value["a"].tolist() == (2 * T).tolist()
        assert (tangent.value["n"].dtype, tangent.value["text"]) == (jax.dtypes.float0, "text")


@WAYS
def test_integers_and_static_values_have_no_tangent(way):
    def f(model, n, how, x):
        return model(x) * n * len(how)

    for nothing in (None, FLOAT0):
        assert way(f, (Affine(2.0), 3, "four", X), (None, nothing, None, T))[1].tolist() == (24 * T).tolist()


@WAYS
def test_wrt_says_which_variables_may_have_tangents(way):
    model = Holder(w=liftnn.Param(X), mean=liftnn.BatchStat(X), scale=X)

    def f(m):
        return m.w * 2 + m.mean * 3 + m.scale * 5

    assert way(f, (model,), ({"mean": T},), wrt=liftnn.BatchStat)[1].tolist() == (3 * T).tolist()
    assert way(f, (model,), ({"scale": T, "w": T},), wrt=...)[1].tolist() == (7 * T).tolist()
    with raises(
        errors.StructureError,
        "A tangent was passed for leaves that are not differentiated:\n  args[0].mean\n"
        "Leave it out. Only floating point and complex Variables that `wrt` selects are differentiated.",
    ):
        way(f, (model,), ({"w": T, "mean": T},))


@WAYS
def test_auxiliary_output_may_be_anything(way):
    model = Affine(2.0)
    out, tangent, aux = way(lambda m, x: (m(x), (m, "text")), (model, X), (None, T), has_aux=True)
    assert (out.tolist(), tangent.tolist()) == ((2 * X).tolist(), (2 * T).tolist())
    assert aux == (model, "text")


@pytest.mark.sample(2)
@WAYS
def test_effects_come_out_once_also_under_other_transforms(way):
    def f(model, x):
        model.layers = [liftnn.Param(x)]
        return model(x), jax.random.normal(model.rngs(), ()), model.layers[0]

    def outer(model, x, t):
        out, tangent = way(f, (model, x), (None, t))
        return out[0].sum(), tangent[2].value

    for transform in (lambda f: f, liftnn.jit, lambda f: liftnn.grad(f, has_aux=True, argnums=1)):
        model, reference = (Holder(inner=Affine(2.0)) for _ in range(2))
        for m in (model, reference):
            m.rngs = liftnn.Rngs(0)
            type(m).__call__ = lambda self, x: self.inner(x)
        transform(outer)(model, X, T)
        f(reference, X)
        assert_same(model, reference)
    del Holder.__call__


def test_the_linear_function_touches_no_module_sees_no_later_change_and_works_under_transforms():
    model = Affine(2.0)
    _, push = liftnn.jit(lambda model, x: liftnn.linearize(step, model, x))(model, X)
    model.w.value = model.w * 7
    assert push({"w": T}, None).tolist() == (T * X).tolist()
    columns = liftnn.vmap(lambda t: push({"w": t}, None))(jnp.eye(3))
    assert columns.tolist() == jnp.diag(X).tolist()
    assert jax.jit(push)(None, T).tolist() == (2 * T).tolist()
    assert int(model.calls.value) == 1


@pytest.mark.parametrize("argnums, tangents", [(0, [{"w": T}]), (-1, [T]), ((1, 0), [T, {"w": T}])])
def test_argnums_choose_what_linearize_differentiates(argnums, tangents):
    _, push = liftnn.linearize(step, Affine(2.0), X, argnums=argnums)
    by_kind = {dict: T * X, type(T): 2 * T}
    assert push(*tangents).tolist() == sum(by_kind.get(type(t), 2 * T) for t in tangents).tolist()


def test_tangents_of_an_ensemble_under_vmap():
    models = liftnn.vmap(Affine)(jnp.arange(1.0, 3.0))
    tangents = jax.tree.map(jnp.ones_like, liftnn.state(models, liftnn.Param))
    mapped = liftnn.vmap(lambda m, t, x: liftnn.jvp(step, (m, x), (t, None))[1], in_axes=(0, 0, None))
    assert mapped(models, tangents, X).tolist() == jnp.stack([X + 1, X + 1]).tolist()


def test_a_tangent_costs_nothing_where_there_is_none():
    def count(tangents):
        jaxpr = jax.make_jaxpr(
            lambda x: liftnn.jvp(lambda m, x: m.w * x, (Holder(w=liftnn.Param(X)), x), tangents)[1]
        )
        return str(jaxpr(X)).count(" mul ")

    assert (count((None, T)), count(({"w": T}, T))) == (2, 3)


def test_an_exception_changes_nothing_and_no_tracer_leaks():
    def fails(model):
        model.w.value, model.mode = model.w * 2, "eval"
        raise KeyError("half way")

    model = Affine()
    for call in (lambda: liftnn.jvp(fails, (model,), (None,)), lambda: liftnn.linearize(fails, model)):
        with pytest.raises(KeyError, match="half way"):
            call()
    assert_same(model, Affine())
    with jax.checking_leaks():
        liftnn.jit(lambda m, x: liftnn.linearize(step, m, x)[1](None, x))(model, X)
        liftnn.jvp(step, (model, X), ({"w": T}, X))
    assert not has_tracer(model)


def test_two_tangents_for_one_variable_are_an_error_unless_they_are_the_same():
    pair = Pair()
    given = {"first": {"w": T}, "second": {"w": T}}
    assert liftnn.jvp(lambda p: p.first.w * 2, (pair,), (given,))[1].tolist() == (2 * T).tolist()
    with raises(
        errors.AliasingError,
        "args[0].second.w has two tangents: it is the same Variable as args[0].first.w.\n"
        "Pass one tangent for a shared Variable, at one of its paths.",
    ):
        liftnn.jvp(step, (pair, X), ({**given, "second": {"w": X}}, None))


@WAYS
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_numpy_tangents_of_64_bits_are_converted_as_in_jax(way, dtype):
    w, x = jnp.asarray(X, dtype), jnp.asarray(T, dtype)
    of_w, of_x = (
        np.array(T, np.result_type(dtype, np.float64)),
        np.full(3, 2.0, np.result_type(dtype, np.float64)),
    )
    expected = jax.jvp(jnp.multiply, (w, x), (of_w, of_x))
    out, tangent = way(lambda m, x: m.w * x, (Holder(w=liftnn.Param(w)), x), ({"w": of_w}, of_x))
    assert (out.tolist(), tangent.tolist()) == (expected[0].tolist(), expected[1].tolist())
    assert tangent.dtype == expected[1].dtype


def test_one_numpy_array_may_be_both_tangents_of_a_shared_variable():
    pair, ones = Pair(), np.ones(3)
    given = {"first": {"w": ones}, "second": {"w": ones}}
    assert liftnn.jvp(lambda p: p.first.w * 2, (pair,), (given,))[1].tolist() == [2, 2, 2]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_tangents_is_an_error(count):
    text = (
        f"Got {count} tangent{'s' * (count != 1)} for 2 arguments.\n"
        "Pass one tangent for each argument; None means zero."
    )
    with raises(errors.ArgumentError, text):
        liftnn.jvp(step, (Affine(), X), (None,) * count)
    push = liftnn.linearize(step, Affine(), X)[1]
    with raises(errors.ArgumentError, text):
        push(*(None,) * count)
