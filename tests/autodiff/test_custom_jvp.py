"""`custom_jvp` follows the user's rule wherever JAX would, with States for modules; effects come out as usual."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine, Holder, Pair

import liftnn
from liftnn import errors

X = jnp.array([1.0, -2.0, 3.0])
T = jnp.array([1.0, 10.0, 100.0])
BOTH = {"argnums": (0, 1)}


def make(call=Affine.__call__):
    """`model(x)` whose tangent by `w` is ten times what it should be."""
    scaled = liftnn.custom_jvp(lambda model, x: call(model, x))

    @scaled.defjvp
    def rule(primals, tangents):
        (model, x), (of_model, of_x) = primals, tangents
        return scaled(model, x), 10 * of_model["w"] * x + of_model["b"] + of_x * model.w

    return scaled


@jax.custom_jvp
def plain(params, x):
    return x * params["w"] + params["b"]


@plain.defjvp
def _(primals, tangents):
    (params, x), (of_params, of_x) = primals, tangents
    return plain(params, x), 10 * of_params["w"] * x + of_params["b"] + of_x * params["w"]


def loss(f, model, x):
    return (f(model, x) ** 2).sum()


def params_of(model):
    return {"w": model.w.value, "b": model.b.value}


def remat(f):
    return liftnn.lift(f, bind=lambda plan, pure: jax.checkpoint(pure))


WAYS = {
    "grad": lambda f: liftnn.grad(functools.partial(loss, f), **BOTH),
    "grad in jit": lambda f: liftnn.jit(liftnn.grad(functools.partial(loss, f), **BOTH)),
    "jit in grad": lambda f: liftnn.grad(functools.partial(loss, liftnn.jit(f)), **BOTH),
    "remat in grad": lambda f: liftnn.grad(functools.partial(loss, remat(f)), **BOTH),
    "jacfwd": lambda f: liftnn.jacfwd(functools.partial(loss, f), **BOTH),
}


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", WAYS)
def test_derivatives_follow_the_rule_and_effects_come_out_once(name):
    model = Affine(2.0)
    call = WAYS[name](make())
    expected = jax.grad(functools.partial(loss, plain), argnums=(0, 1))(params_of(model), X)
    for calls in (1, 2):
        of_model, of_x = call(model, X)
        for a, b in (
            (of_model["w"], expected[0]["w"]),
            (of_model["b"], expected[0]["b"]),
            (of_x, expected[1]),
        ):
            np.testing.assert_allclose(np.asarray(a), b, rtol=1e-6)
        assert int(model.calls.value) == calls
    assert not has_tracer(model)


@pytest.mark.thorough
def test_tangents_of_a_part_and_second_derivatives():
    f, model = make(), Affine(2.0)
    out, tangent = liftnn.jvp(f, (model, X), ({"w": T}, None))
    zero = jnp.zeros(3)
    expected = jax.jvp(plain, (params_of(model), X), ({"w": T, "b": zero}, zero))
    assert (out.tolist(), tangent.tolist()) == (expected[0].tolist(), expected[1].tolist())
    ours = liftnn.hessian(functools.partial(loss, f))(model, X)
    theirs = jax.hessian(functools.partial(loss, plain))(params_of(model), X)
    for a in ("w", "b"):
        for b in ("w", "b"):
            np.testing.assert_allclose(ours[a][b].value, theirs[a][b], rtol=1e-5)


def test_under_vmap():
    xs, ts = jnp.stack([X, 2 * X]), jnp.stack([T, T])
    f = make()
    mapped = liftnn.vmap(lambda m, x, t: liftnn.jvp(f, (m, x), ({"w": t}, None))[1], in_axes=(None, 0, 0))
    assert mapped(Affine(2.0), xs, ts).tolist() == (10 * xs * ts).tolist()


def test_the_function_itself_runs_where_nothing_is_differentiated():
    def fails(*_):
        raise AssertionError

    f = liftnn.custom_jvp(lambda model, x: model(x))
    f.defjvp(fails)
    for call in (f, liftnn.jit(f)):
        model = Affine(2.0)
        assert call(model, X).tolist() == (2 * X).tolist()
        assert int(model.calls.value) == 1


def test_methods_names_defaults_and_arguments_without_derivatives():
    class Mine(Affine):
        @liftnn.custom_jvp(nondiff_argnums=(1, 3))
        def scaled(self, how, x, n=2):
            return how(self(x)) * n

    @Mine.scaled.defjvp
    def _(how, n, primals, tangents):
        assert (how, n) == (jnp.sin, 3)
        return primals[0].scaled(how, primals[1], n), 100 * tangents[1]

    model = Mine(2.0)
    assert model.scaled(jnp.sin, X).tolist() == (jnp.sin(2 * X) * 2).tolist()
    found = liftnn.grad(lambda x, m: m.scaled(jnp.sin, n=3, x=x).sum())(X, model)
    assert found.tolist() == [100.0] * 3
    assert int(model.calls.value) == 2


def test_inside_raw_jax_transforms():
    f = make(lambda m, x: m.w * x + m.b)
    model = Holder(w=liftnn.Param(jnp.full(3, 2.0)), b=liftnn.Param(jnp.zeros(3)))
    out, tangent = jax.jit(lambda x, t: jax.jvp(functools.partial(f, model), (x,), (t,)))(X, T)
    assert (out.tolist(), tangent.tolist()) == ((2 * X).tolist(), (2 * T).tolist())


FORMS = {
    "state": lambda t: liftnn.State({"b": liftnn.Param(t)}),
    "dict": lambda t: {"b": t, "w": None},
    "module": lambda t: Affine(0.0),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_tangent_of_a_module_in_the_output_may_have_any_form_and_gaps(name):
    def call(model, x):
        model.b.value = model.b + x
        return model, Holder(v=liftnn.Param(x), n=jnp.arange(2)), 3

    f = liftnn.custom_jvp(call)

    @f.defjvp
    def rule(primals, tangents):
        return f(*primals), (FORMS[name](tangents[1] * 5), {"v": tangents[1] * 7}, None)

    model = Affine(2.0)
    out, (of_model, of_new, of_n) = liftnn.jvp(f, (model, X), ({"w": 2 * T}, T))
    assert out[0] is model
    assert of_model["w"].value.tolist() == (2 * T).tolist()  # returned as it was: its own tangent
    assert of_model["b"].value.tolist() == ([0.0] * 3 if name == "module" else (5 * T).tolist())
    assert type(of_new["v"]) is liftnn.Param
    assert of_new["v"].value.tolist() == (7 * T).tolist()
    assert of_n.dtype == jax.dtypes.float0


def test_a_variable_shared_by_two_arguments_has_its_tangent_in_the_first():
    f = liftnn.custom_jvp(lambda a, b: a.w * b.b)

    @f.defjvp
    def rule(primals, tangents):
        assert (list(tangents[0]), list(tangents[1])) == (["w", "b"], ["b"])
        return f(*primals), tangents[0]["w"] * 7

    pair = Pair()
    assert liftnn.jvp(f, (pair.first, pair.second), ({"w": T}, None))[1].tolist() == (7 * T).tolist()


def test_integers_keys_and_static_values():
    f = liftnn.custom_jvp(lambda x, n, key, how: x * n * len(how))

    @f.defjvp
    def rule(primals, tangents):
        assert tangents[3] is None
        assert tangents[1].dtype == jax.dtypes.float0
        return f(*primals), tangents[0] * 100

    assert liftnn.grad(lambda x: f(x, 2, jax.random.key(0), "four").sum())(X).tolist() == [100.0] * 3


def test_what_a_partial_stores_does_not_reach_the_rule():
    f = liftnn.custom_jvp(functools.partial(lambda k, model, x: model(x) * k, 2.0))
    f.defjvp(lambda primals, tangents: (primals[0](primals[1]) * 2.0, 100 * tangents[1]))
    model = Affine(2.0)
    assert f(model, X).tolist() == (4 * X).tolist()
    assert liftnn.grad(lambda m, x: f(m, x).sum(), argnums=1)(model, X).tolist() == [100.0] * 3
    assert int(model.calls.value) == 2


def test_symbolic_zeros_reach_the_rule():
    f = liftnn.custom_jvp(lambda m, x: m.w * x)
    zero = jax.custom_derivatives.SymbolicZero

    def rule(primals, tangents):
        of_model, of_x = tangents
        assert isinstance(of_model["w"].value, zero)
        assert not isinstance(of_x, zero)
        return f(*primals), of_x * primals[0].w

    f.defjvp(rule, symbolic_zeros=True)
    assert liftnn.jvp(f, (Affine(2.0), X), (None, T))[1].tolist() == (2 * T).tolist()


def test_defjvps_adds_what_each_argument_gives():
    f = liftnn.custom_jvp(lambda model, x, y: model.w * x + y)
    f.defjvps(lambda t, out, model, x, y: t["w"] * x, None, lambda t, out, model, x, y: 10 * t + 0 * out)
    tangents = ({"w": T}, T, X)
    assert liftnn.jvp(f, (Affine(2.0), X, X), tangents)[1].tolist() == (T * X + 10 * X).tolist()
    f.defjvps(None, None, None)
    assert liftnn.jvp(f, (Affine(2.0), X, X), tangents)[1].tolist() == [0.0] * 3


def test_structure_changes_and_randomness_come_out_of_either():
    def call(model, x):
        noise = jax.random.normal(model.rngs(), x.shape)
        model.layers = [*getattr(model, "layers", []), liftnn.Param(noise)]
        return model.w * x + noise

    f = liftnn.custom_jvp(call)
    f.defjvp(lambda primals, tangents: (call(*primals), tangents[1]))
    model, reference = (Holder(w=liftnn.Param(X), rngs=liftnn.Rngs(0)) for _ in range(2))
    f(model, X)
    liftnn.grad(lambda m, x: f(m, x).sum())(model, X)
    liftnn.jit(liftnn.grad(lambda m, x: liftnn.jit(f)(m, x).sum()))(model, X)
    for _ in range(3):
        call(reference, X)
    assert_same(model, reference)


def test_an_exception_changes_nothing_and_no_tracer_leaks():
    def fails(primals, tangents):
        primals[0].w.value = tangents[1]
        raise KeyError("half way")

    f = liftnn.custom_jvp(lambda m, x: m(x))
    f.defjvp(fails)
    model = Affine()
    with pytest.raises(KeyError, match="half way"):
        liftnn.jvp(f, (model, X), (None, T))
    assert_same(model, Affine())
    with jax.checking_leaks():
        liftnn.jit(liftnn.grad(functools.partial(loss, make())))(model, X)


def test_a_rule_that_does_something_else_than_the_function_is_an_error():
    def grow(m, x):
        m.layers = [x]
        return m(x)

    f = liftnn.custom_jvp(grow)
    f.defjvp(lambda primals, tangents: (primals[0](primals[1]), tangents[1]))
    with raises(
        errors.StructureError,
        "The outputs or module updates of the rule and the function differ:\n  args[0]: changed in a different way\n"
        "Call the function inside the rule, or make the same updates there.",
    ):
        liftnn.jvp(liftnn.jit(f), (Affine(), X), (None, X))
