"""`custom_vjp` follows the user's rule wherever JAX would, with States for modules; effects come out as usual."""

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
BOTH = {"argnums": (0, 1)}
PARAMS = {"w": jnp.full(3, 2.0), "b": jnp.zeros(3)}


def make(call=Affine.__call__, **options):
    """`model(x)` whose cotangent of `w` is ten times what it should be."""
    scaled = liftnn.custom_vjp(lambda model, x: call(model, x))

    def forward(model, x):
        return scaled(model, x), (model, x)

    def backward(residuals, ct):
        model, x = residuals
        return liftnn.State({"w": liftnn.Param(10 * ct * x), "b": ct}), ct * model.w

    scaled.defvjp(forward, backward, **options)
    return scaled


@jax.custom_vjp
def plain(params, x):
    return x * params["w"] + params["b"]


plain.defvjp(
    lambda params, x: (plain(params, x), (params, x)),
    lambda res, ct: ({"w": 10 * ct * res[1], "b": ct}, ct * res[0]["w"]),
)


def loss(f, model, x):
    return (f(model, x) ** 2).sum()


def expected(x=X):
    return jax.grad(functools.partial(loss, plain), argnums=(0, 1))(PARAMS, x)


def assert_close(actual, wanted):
    actual = actual[0].to_pure_dict(), actual[1]
    assert jax.tree.structure(actual) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def remat(f):
    return liftnn.lift(f, bind=lambda plan, pure: jax.checkpoint(pure))


WAYS = {
    "grad": lambda f: liftnn.grad(functools.partial(loss, f), **BOTH),
    "grad in jit": lambda f: liftnn.jit(liftnn.grad(functools.partial(loss, f), **BOTH)),
    "jit in grad": lambda f: liftnn.grad(functools.partial(loss, liftnn.jit(f)), **BOTH),
    "remat in grad": lambda f: liftnn.grad(functools.partial(loss, remat(f)), **BOTH),
    "vjp": lambda f: lambda m, x: liftnn.vjp(functools.partial(loss, f), m, x)[1](jnp.ones(())),
    "jacrev": lambda f: liftnn.jacrev(functools.partial(loss, f), **BOTH),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", WAYS)
def test_derivatives_follow_the_rule_and_effects_come_out_once(name):
    model, f = Affine(2.0), make()
    call = WAYS[name](f)
    for calls in (1, 2):
        assert_close(call(model, X), expected())
        assert int(model.calls.value) == calls
    assert not has_tracer(model)


def test_the_function_itself_runs_where_nothing_is_differentiated():
    def fails(*_):
        raise AssertionError

    f = liftnn.custom_vjp(lambda model, x: model(x))
    f.defvjp(fails, fails)
    for call in (f, liftnn.jit(f), liftnn.vmap(f, in_axes=(None, None), out_axes=None, axis_size=2)):
        model = Affine(2.0)
        assert call(model, X).tolist() == (2 * X).tolist()
        assert int(model.calls.value) == 1


def test_under_vmap_inside_and_outside_of_grad():
    f, xs = make(), jnp.stack([X, 2 * X])
    rows = liftnn.vmap(liftnn.grad(functools.partial(loss, f), **BOTH), in_axes=(None, 0))(Affine(2.0), xs)
    plain_grad = jax.grad(functools.partial(loss, plain), argnums=(0, 1))
    assert_close(rows, jax.vmap(plain_grad, in_axes=(None, 0))(PARAMS, xs))
    mapped = liftnn.vmap(f, in_axes=(None, 0))
    whole = liftnn.grad(lambda m, x: (mapped(m, x) ** 2).sum(), **BOTH)(Affine(2.0), xs)
    plain_mapped = jax.vmap(plain, in_axes=(None, 0))
    assert_close(whole, jax.grad(lambda p, x: (plain_mapped(p, x) ** 2).sum(), argnums=(0, 1))(PARAMS, xs))


def test_inside_raw_jax_transforms():
    model, f = (
        Holder(w=liftnn.Param(jnp.full(3, 2.0)), b=liftnn.Param(jnp.zeros(3))),
        make(lambda m, x: m.w * x + m.b),
    )
    assert jax.jit(jax.grad(lambda x: loss(f, model, x)))(X).tolist() == expected()[1].tolist()
    ys = jax.lax.scan(lambda c, x: (c, jax.grad(lambda x: loss(f, model, x))(x)), 0, jnp.stack([X, X]))[1]
    assert ys.tolist() == [expected()[1].tolist()] * 2


def test_methods_bound_methods_and_instances():
    class Mine(Affine):
        @liftnn.custom_vjp
        def double(self, x):
            return 2 * self(x)

        double.defvjp(lambda self, x: (self.double(x), x), lambda x, ct: ({"b": ct * 7}, x))

        def read(self, x):
            return x * self.w

    model = Mine(2.0)
    assert model.double(X).tolist() == (4 * X).tolist()
    of_model, of_x = liftnn.grad(lambda m, x: m.double(x).sum(), **BOTH)(model, X)
    assert (of_model["b"].value.tolist(), of_x.tolist()) == ([7.0] * 3, X.tolist())
    f = liftnn.custom_vjp(model.read)
    f.defvjp(lambda m, x: (m.read(x), None), lambda _, ct: (None, 5 * ct))
    assert liftnn.grad(lambda x: f(x).sum())(X).tolist() == [5.0] * 3
    instance = liftnn.custom_vjp(model)
    instance.defvjp(lambda m, x: (m(x), None), lambda _, ct: (None, ct))
    assert instance(X).tolist() == (2 * X).tolist()


def test_arguments_by_name_and_with_defaults_reach_the_rule_by_position():
    @liftnn.custom_vjp
    def f(x, y=2.0, z=3.0):
        return x * y * z

    f.defvjp(lambda x, y, z: (f(x, y, z), (y, z)), lambda res, ct: (ct * 100, *res))
    assert float(liftnn.grad(lambda x: f(z=5.0, x=x))(1.0)) == 100.0
    assert float(f(1.0, z=5.0)) == 10.0


@pytest.mark.parametrize("options", [{"nondiff_argnums": (0, 2)}, {"nondiff_argnames": ["how", "n"]}])
def test_arguments_without_derivatives_come_first_and_stay_what_they_are(options):
    seen = []

    @liftnn.custom_vjp(**options)
    def f(how, x, n):
        return how(x) * n

    def backward(how, n, x, ct):
        seen.append((how, type(n), n))
        return (ct * n * how(x),)

    f.defvjp(lambda how, x, n: (f(how, x, n), x), backward)
    assert liftnn.grad(lambda x: f(jnp.sin, x, 3).sum())(X).tolist() == (3 * jnp.sin(X)).tolist()
    assert seen == [(jnp.sin, int, 3)]


def test_modules_and_arrays_may_be_arguments_without_derivatives():
    f = liftnn.custom_vjp(lambda model, x, k: model(x) * k, nondiff_argnums=(0, 2))
    f.defvjp(lambda model, x, k: (f(model, x, k), None), lambda model, k, _, ct: (ct * model.w * k * 10,))
    model = Affine(2.0)
    assert liftnn.grad(lambda x, m, k: f(m, x, k).sum())(X, model, 3.0).tolist() == [60.0] * 3
    of_model = liftnn.grad(lambda m, x, k: f(m, x, k).sum())(model, X, 3.0)
    assert of_model["w"].value.tolist() == [0.0] * 3


def test_residuals_may_be_modules_states_functions_and_anything():
    def forward(model, x):
        out, pull_back = liftnn.vjp(lambda m, x: m(x), model, x)
        new = Holder(layers=[model, liftnn.Param(x)], name="new")
        return out, {
            "new": new,
            "state": liftnn.state(model),
            "pull": pull_back,
            "text": ("text", None, jnp.sin),
        }

    def backward(residuals, ct):
        new, state = residuals["new"], residuals["state"]
        assert new.layers[0].me is new.layers[0]
        assert (new.name, residuals["text"]) == ("new", ("text", None, jnp.sin))
        of_model, of_x = residuals["pull"](ct)
        return {**of_model.to_pure_dict(), "b": state["w"] + new.layers[1]}, of_x * new.layers[0].w

    f = liftnn.custom_vjp(lambda m, x: m(x))
    f.defvjp(forward, backward)
    for way in (lambda g: g, liftnn.jit):
        model = Affine(2.0)
        model.me = model
        of_model, of_x = way(liftnn.grad(lambda m, x: f(m, x).sum(), **BOTH))(model, X)
        assert of_model["w"].value.tolist() == X.tolist()
        assert of_model["b"].value.tolist() == (2 + X).tolist()
        assert of_x.tolist() == [4.0] * 3


COTANGENTS = {
    "state": lambda m, ct: liftnn.State.from_flat({("first", "w"): liftnn.Param(ct)}),
    "dict": lambda m, ct: {"first": {"w": ct, "b": None}, "second": None},
    "by another path": lambda m, ct: {"second": {"w": ct}},
    "two parts": lambda m, ct: {"first": {"w": ct / 4}, "second": {"w": ct * 3 / 4}},
}


@pytest.mark.parametrize("name", COTANGENTS)
def test_a_cotangent_of_a_module_may_have_any_form_and_gaps(name):
    f = liftnn.custom_vjp(lambda m, x: m(x))
    f.defvjp(lambda m, x: (f(m, x), m), lambda m, ct: (COTANGENTS[name](m, ct), None))
    of_model, of_x = liftnn.grad(lambda m, x: f(m, x).sum(), **BOTH)(Pair(), X)
    assert {p: x.value.tolist() for p, x in of_model.flat().items()} == {
        ("first", "w"): [1.0] * 3,
        ("first", "b"): [0.0] * 3,
        ("second", "b"): [0.0] * 3,
    }
    assert of_x.tolist() == [0.0] * 3


def test_a_module_can_be_the_cotangent():
    def backward(m, ct):
        of_m = liftnn.clone(m)
        of_m.w.value, of_m.b.value, of_m.scale = ct * 5, ct * 7, ct
        return (of_m,)

    f = liftnn.custom_vjp(lambda m: m.w * m.scale)
    f.defvjp(lambda m: (f(m), m), backward)
    model = Affine(2.0)
    model.scale, model.rngs = X, liftnn.Rngs(0)
    found = liftnn.grad(lambda m: f(m).sum(), wrt=(liftnn.Param, liftnn.PathContains("scale")))(model)
    assert {k: jax.tree.leaves(x)[0].tolist() for k, x in found.to_pure_dict().items()} == {
        "w": [5.0] * 3,
        "b": [7.0] * 3,
        "scale": [1.0] * 3,
    }


def test_a_variable_shared_by_two_arguments_gets_the_sum():
    f = liftnn.custom_vjp(lambda a, b: a.w * b.w)
    f.defvjp(lambda a, b: (f(a, b), None), lambda _, ct: ({"w": ct * 10}, {"w": ct * 100}))
    pair, one = Pair(), Affine()
    grads = liftnn.grad(lambda a, b: f(a, b).sum(), **BOTH)(pair.first, pair.second)
    assert grads[0]["w"].value.tolist() == [110.0] * 3
    assert list(grads[1]) == ["b"]
    grads = liftnn.grad(lambda m: f(m, m).sum())(one)
    assert grads["w"].value.tolist() == [110.0] * 3


def test_the_cotangent_of_a_module_in_the_output_is_a_state():
    seen = []

    def call(model, x):
        model.b.value = model.b + x
        return {
            "model": model,
            "new": Holder(v=liftnn.Param(x * 2), scale=x, n=liftnn.Param(jnp.arange(2))),
            "n": 3,
        }

    def backward(x, ct):
        seen.append(ct)
        return {"b": ct["model"]["b"] * 100}, ct["new"]["v"] + ct["new"]["scale"]

    def total(model, x):
        out = f(model, x)
        return (out["model"].w * 3 + out["model"].b * 5 + out["new"].v * 7 + out["new"].scale * 11).sum()

    f = liftnn.custom_vjp(call)
    f.defvjp(lambda m, x: (call(m, x), x), backward)
    model = Affine(2.0)
    of_model, of_x = liftnn.grad(total, **BOTH)(model, X)
    assert of_model["w"].value.tolist() == [3.0] * 3  # returned as it was: its own derivative
    assert of_model["b"].value.tolist() == [500.0] * 3
    assert of_x.tolist() == [18.0] * 3
    assert list(seen[0]["model"].flat()) == [("b",)]
    assert type(seen[0]["new"]["v"]) is liftnn.Param
    assert seen[0]["n"].dtype == jax.dtypes.float0
    assert model.b.value.tolist() == X.tolist()


def test_what_is_written_counts_as_constant():
    def write(model, x):
        model.b.value = model.w * x
        return model.w * x

    f = make(write)
    found = liftnn.grad(lambda m, x: (f(m, x) * 0 + m.b).sum())(Affine(2.0), X)
    assert found["w"].value.tolist() == [0.0] * 3


def test_a_count_that_a_mapped_loop_writes_does_not_reach_the_rule():
    """Oracle: the derivatives of the formula without a rule."""

    def formula(w, x):
        return jnp.sin(w) * x

    @liftnn.custom_vjp
    def f(holder, x):
        holder.count.value = holder.count.value + 1.0
        return formula(holder.w.value, x)

    def forward(holder, x):
        return f(holder, x), (holder.w.value, x)

    def backward(residuals, ct):
        w, x = residuals
        return {"w": (ct * jnp.cos(w) * x).sum()}, ct * jnp.sin(w)

    f.defvjp(forward, backward)
    holder = liftnn.Module()
    holder.w, holder.count = liftnn.Param(jnp.asarray(0.7)), liftnn.Variable(jnp.zeros(()))
    rows = jnp.arange(6.0).reshape(2, 3)

    def in_a_loop(holder, xs):
        return liftnn.scan(lambda holder, x: (holder, f(holder, x)))(holder, xs)[1].sum()

    def read_back(holder, xs):
        return (f(holder, xs) + holder.count.value).sum()

    for mapped in (in_a_loop, read_back):
        run = liftnn.vmap(mapped, in_axes=(None, 0))
        grads = liftnn.grad(lambda holder, rows, run=run: run(holder, rows).sum(), argnums=(0, 1))(
            holder, rows
        )
        wanted = jax.grad(lambda w, rows: formula(w, rows).sum(), argnums=(0, 1))(0.7, rows)
        np.testing.assert_allclose(grads[0]["w"].value, wanted[0], rtol=1e-6)
        np.testing.assert_allclose(grads[1], wanted[1], rtol=1e-6)
    assert float(holder.count.value) == 4


def test_structure_changes_and_randomness_come_out_of_either():
    def call(model, x):
        noise = jax.random.normal(model.rngs(), x.shape)
        model.layers = [*getattr(model, "layers", []), liftnn.Param(noise)]
        return model.w * x + noise

    f = liftnn.custom_vjp(call)
    f.defvjp(lambda m, x: (call(m, x), x), lambda x, ct: ({"w": ct * x}, None))
    model, reference = (Holder(w=liftnn.Param(X), rngs=liftnn.Rngs(0)) for _ in range(2))
    f(model, X)
    liftnn.grad(lambda m, x: f(m, x).sum())(model, X)
    liftnn.jit(liftnn.grad(lambda m, x: f(m, x).sum()))(model, X)
    liftnn.grad(lambda m, x: liftnn.jit(f)(m, x).sum())(model, X)
    for _ in range(4):
        call(reference, X)
    assert_same(model, reference)


def test_integers_keys_pytrees_and_nothing_at_all():
    def call(model, n, key, empty):
        return model.p.value["a"] * n + jax.random.normal(key, (3,))

    f = liftnn.custom_vjp(call)
    f.defvjp(
        lambda *args: (call(*args), None),
        lambda _, ct: ({"p": {"a": ct * 3, "n": None, "text": "text"}}, None, None, {}),
    )
    model = Holder(
        p=liftnn.Param({"a": X, "n": jnp.arange(2), "text": "text"}), zero=liftnn.Param(jnp.ones((0, 2)))
    )
    found = liftnn.vjp(lambda m: f(m, 2, jax.random.key(0), Holder()), model)[1](jnp.ones(3))[0]
    assert found["p"].value["a"].tolist() == [3.0] * 3
    assert found["zero"].shape == (0, 2)


def test_symbolic_zeros_say_what_is_differentiated():
    seen = []

    def forward(model, x, y):
        seen.append((model.w.perturbed, model.b.perturbed, model.calls.perturbed, x.perturbed, y.perturbed))
        model.b.set_metadata(note="forward")
        return f(model, x.value, y.value), model

    def call(model, x, y):
        model.b.set_metadata(note="forward")
        return model(x), y * 2

    def backward(model, ct):
        assert not model.w.has_metadata("perturbed")
        seen.append([isinstance(x, jax.custom_derivatives.SymbolicZero) for x in ct])
        return {"w": ct[0], "b": None}, ct[1], ct[0] * model.w

    f = liftnn.custom_vjp(call)
    f.defvjp(forward, backward, symbolic_zeros=True)
    model = Affine(2.0)
    of_w = liftnn.grad(lambda m, x, y: f(m, x, y)[0].sum(), wrt=liftnn.PathContains("w"))(model, X, X)
    assert (list(of_w), of_w["w"].value.tolist()) == (["w"], [1.0] * 3)
    of_x, of_y = liftnn.grad(lambda m, x, y: f(m, x, y)[0].sum(), argnums=(1, 2))(model, X, X)
    assert (of_x.tolist(), of_y.tolist()) == ([0.0] * 3, [2.0] * 3)
    assert seen == [
        (True, False, False, False, False),
        [False, True],
        (False, False, False, True, True),
        [False, True],
    ]
    assert model.b.get_metadata() == {"note": "forward"}


def clone_it(m, x):
    return m.w * x, liftnn.clone(m)


def attach_copies(m, x):
    m.copy = liftnn.clone(m.w)
    m.copies = [liftnn.Variable(x, **m.w.get_metadata())]
    return m.w * x, None


@pytest.mark.parametrize("wrap", [lambda f: f, liftnn.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("f", [clone_it, attach_copies])
def test_copies_of_variables_made_under_symbolic_zeros_have_the_metadata_of_the_variable(f, wrap):
    def with_sum(f, m, x):
        y, copied = f(m, x)
        return y.sum(), copied

    rule = liftnn.custom_vjp(f)
    rule.defvjp(lambda m, x: (f(m, x.value), None), lambda _, ct: ({"w": ct[0]}, None), symbolic_zeros=True)
    model, plain = Affine(2.0), Affine(2.0)
    grads, copied = wrap(liftnn.grad(functools.partial(with_sum, rule), has_aux=True))(model, X)
    _, expected = with_sum(f, plain, X)
    assert_same((model, copied), (plain, expected))
    assert grads["w"].value.tolist() == [1.0] * 3


def test_an_exception_in_either_pass_changes_nothing_and_no_tracer_leaks():
    def fails(*_):
        raise KeyError("half way")

    for forward, backward in ((fails, fails), (lambda m, x: (m(x), None), fails)):
        f = liftnn.custom_vjp(lambda m, x: m(x))
        f.defvjp(forward, backward)
        model = Affine()
        with pytest.raises(KeyError, match="half way"):
            liftnn.grad(functools.partial(loss, f))(model, X)
        assert_same(model, Affine())
    with jax.checking_leaks():
        liftnn.jit(liftnn.grad(functools.partial(loss, make())))(model, X)


def test_forward_mode_is_refused_as_in_jax():
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(plain, ({"w": X, "b": X}, X), ({"w": X, "b": X}, X))
    with pytest.raises(TypeError, match="forward-mode"):
        liftnn.jvp(make(), (Affine(), X), (None, X))


def test_a_rule_that_does_something_else_than_the_function_is_an_error():
    f = liftnn.custom_vjp(lambda m, x: m(x))
    f.defvjp(lambda m, x: (m.w * x, None), lambda _, ct: (None, ct))
    assert liftnn.grad(lambda m, x: f(m, x).sum(), argnums=1)(Affine(), X).tolist() == [1.0] * 3
    with raises(
        errors.StructureError,
        "The outputs or module updates of fwd and the function differ:\n  args[0].calls: written by the function only\n"
        "Call the function inside fwd, or make the same updates there.",
    ):
        liftnn.grad(lambda m, x: liftnn.jit(f)(m, x).sum())(Affine(), X)
