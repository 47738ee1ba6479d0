"""`jacfwd`, `jacrev` and `hessian` give JAX's derivatives, nested as JAX's, with States for modules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine, Holder, Pair

import liftnn
from liftnn import errors

X = jnp.array([1.0, -2.0, 0.5])
NAMES = ["jacfwd", "jacrev", "hessian"]
EACH = pytest.mark.parametrize("name", NAMES)


def transforms(name):
    return getattr(liftnn, name), getattr(jax, name)


def tanh(model, x):
    return jnp.tanh(model(x))


def plain_call(params, x):
    w, b = params["first"]["w"], params["first"]["b"]
    return (x * w + b) * w + params["second"]["b"]


def plain(params, x):
    return jnp.tanh(plain_call(params, x))


def params_of(model):
    return liftnn.state(model, liftnn.Param).to_pure_dict()


def pure(tree):
    """A tree with plain dicts in place of States."""
    if isinstance(tree, liftnn.State):
        return {k: pure(tree[k]) for k in tree}
    if isinstance(tree, (tuple, list)):
        return type(tree)(map(pure, tree))
    if isinstance(tree, dict):
        return {k: pure(x) for k, x in tree.items()}
    return tree.value if isinstance(tree, liftnn.Variable) else tree


def assert_close(actual, expected):
    actual = pure(actual)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.sample(16)
@EACH
@pytest.mark.parametrize("argnums", [0, 1, -1, (0, 1), (-1, 0)])
def test_derivatives_are_jaxs_over_the_params(name, argnums):
    ours, theirs = transforms(name)
    model = Pair()
    assert_close(ours(tanh, argnums)(model, X), theirs(plain, argnums)(params_of(model), X))
    assert int(model.first.calls.value) == 1


@pytest.mark.sample(3)
@EACH
def test_the_tree_of_the_output_is_outside(name):
    ours, theirs = transforms(name)

    def f(model, x):
        out = model(x)
        return {"out": out, "more": [(out**2).sum(), None]}

    def g(params, x):
        out = plain_call(params, x)
        return {"out": out, "more": [(out**2).sum(), None]}

    model = Pair()
    assert_close(ours(f)(model, X), theirs(g)(params_of(model), X))
    assert_close(ours(f, (1, 0))(model, X), theirs(g, (1, 0))(params_of(model), X))


@pytest.mark.sample(3)
@EACH
def test_a_module_in_the_output_is_a_state_whose_paths_go_on(name):
    ours, theirs = transforms(name)

    def f(model, x):
        model.w.value = model.w**2 * x
        return model, Holder(scale=model.b * model.b, n=liftnn.Param(jnp.arange(2)))

    def g(params, x):
        return {"w": params["w"] ** 2 * x, "b": params["b"]}, {"scale": params["b"] ** 2}

    model = Affine(2.0)
    found = ours(f)(model, X)
    assert_close(found, theirs(g)({"w": jnp.full(3, 2.0), "b": jnp.zeros(3)}, X))
    depth = 2 if name == "hessian" else 1
    assert all(len(path) == 1 + depth for path in found[0].flat())
    both = ours(f, (0, 1))(Affine(2.0), X)
    assert_close(both, theirs(g, (0, 1))({"w": jnp.full(3, 2.0), "b": jnp.zeros(3)}, X))


@EACH
def test_a_state_that_is_returned_or_passed_is_one_too(name):
    ours, theirs = transforms(name)

    def f(state):
        return jax.tree.map(lambda x: x**2, state)

    state = liftnn.state(Affine(2.0), liftnn.Param)
    found = ours(f)(state)
    expected = theirs(lambda p: jax.tree.map(lambda x: x**2, p))(state.to_pure_dict())
    assert_close(found, expected)
    assert isinstance(found, liftnn.State)


@pytest.mark.sample(3)
@EACH
def test_a_variable_a_pytree_value_and_a_tree_of_modules_can_be_differentiated(name):
    ours, theirs = transforms(name)

    def f(tree):
        return tree["v"].value["a"] ** 2 * tree["x"] + tree["v"].value["b"][0]

    def g(tree):
        return tree["v"]["a"] ** 2 * tree["x"] + tree["v"]["b"][0]

    value = {"a": X, "b": (jnp.ones(3),)}
    found = ours(f)({"v": liftnn.Param(value), "x": 3.0})
    assert_close(found, theirs(g)({"v": value, "x": 3.0}))


@EACH
def test_types_and_metadata_are_those_of_the_innermost_variable(name):
    class Mine(liftnn.Param):
        pass

    model = Holder(a=Mine(X, tag="mine"), b=liftnn.Param(X))
    found = transforms(name)[0](lambda m: (m.a**2 * m.b.value).sum())(model)
    of_a = [x for path, x in found.flat().items() if path[-1] == "a"]
    assert [(type(x), x.tag) for x in of_a] == [(Mine, "mine")] * (2 if name == "hessian" else 1)


@EACH
def test_filters_and_diff_state_choose(name):
    def f(a, b):
        return (a.w**2 * b.w.value**2 + a.b.value * b.b.value).sum()

    only_b = liftnn.DiffState(0, liftnn.PathContains("b"))
    found = transforms(name)[0](f, argnums=(only_b, 1), wrt=liftnn.PathContains("w"))(
        Affine(2.0), Affine(3.0)
    )
    assert [list(x) for x in found] == [["b"], ["w"]]
    with raises(
        errors.FilterError,
        "Nothing to differentiate: no Variable of args[0] matches OfType(BatchStat).\n"
        "Pass a filter as `wrt` that matches Variables of the module, such as liftnn.Param, or leave the argument out "
        "of `argnums`.",
    ):
        transforms(name)[0](f, wrt=liftnn.BatchStat)(Affine(), Affine())


@EACH
def test_auxiliary_output_and_effects_come_out_once(name):
    def f(model, x):
        model.layers = [Affine(3.0)]
        noise = jax.random.normal(model.rngs(), x.shape)
        return model.layers[0](x) + model.w * noise, (model, "text", model.w)

    model, reference = (Holder(w=liftnn.Param(X), rngs=liftnn.Rngs(0)) for _ in range(2))
    found, aux = transforms(name)[0](f, has_aux=True)(model, X)
    f(reference, X)
    assert_same(model, reference)
    assert not has_tracer((model, found))
    assert (aux[0], aux[1], aux[2]) == (model, "text", model.w)


@pytest.mark.sample(2)
@EACH
@pytest.mark.parametrize("method", ["loss", "__call__"])
def test_bound_methods_and_decorators(name, method):
    ours = transforms(name)[0]
    model = Affine(2.0)
    assert_same(ours(getattr(model, method))(X), ours(getattr(Affine, method))(Affine(2.0), X))

    @ours(argnums=1)
    def f(model, x):
        return model.loss(x)

    assert f(model, X).shape == ((3, 3) if name == "hessian" else (3,))


@EACH
def test_inside_jit_and_vmap_and_inside_each_other(name):
    ours, theirs = transforms(name)
    model, xs = Pair(), jnp.stack([X, 2 * X])
    mapped = liftnn.vmap(lambda m, x: ours(tanh)(m, x), in_axes=(None, 0))
    expected = jax.jit(jax.vmap(theirs(plain), in_axes=(None, 0)))(params_of(model), xs)
    assert_close(liftnn.jit(mapped)(model, xs), expected)


def test_the_hessian_is_the_jacobian_of_the_gradient():
    def loss(model, x):
        return tanh(model, x).sum()

    composed = liftnn.jacfwd(liftnn.jacrev(loss))(Pair(), X)
    assert_same(liftnn.hessian(loss)(Pair(), X), composed)
    of_grad = liftnn.jacrev(liftnn.grad(loss))(Pair(), X)
    assert list(of_grad.flat()) == list(composed.flat())


@pytest.mark.thorough
def test_the_hessian_of_a_network_with_batch_norm():
    class Net(liftnn.Module):
        def __init__(self, rngs):
            self.linear = liftnn.Linear(2, 2, rngs=rngs)
            self.norm = liftnn.BatchNorm(2, momentum=0.5, rngs=rngs)

        def __call__(self, x):
            return jnp.tanh(self.norm(self.linear(x)))

    x = jax.random.normal(jax.random.key(1), (4, 2))
    model, reference = Net(liftnn.Rngs(0)), Net(liftnn.Rngs(0))
    found = liftnn.hessian(lambda m: (m(x) ** 3).sum())(model)
    params, rest, graphdef = liftnn.split(reference, liftnn.Param, ...)

    def by_values(values):
        state = params.map(lambda path, v: values[path[0]][path[1]])
        return (liftnn.merge(graphdef, state, rest)(x) ** 3).sum()

    expected = jax.hessian(by_values)(params.to_pure_dict())
    assert_close(found, expected)
    reference(x)
    assert_same(model, reference)


def test_holomorphic_functions_and_integers_that_are_allowed():
    z = jnp.array([1 + 2j, 3 - 1j])
    for name in NAMES:
        ours, theirs = transforms(name)
        found = ours(lambda m: m.z.value**3, holomorphic=True)(Holder(z=liftnn.Param(z)))["z"]
        found = found["z"] if name == "hessian" else found
        np.testing.assert_allclose(found.value, theirs(lambda z: z**3, holomorphic=True)(z), rtol=1e-6)
    ours, theirs = (m.jacrev(lambda n: 1.0 * n, allow_int=True)(3) for m in (liftnn, jax))
    assert ours.dtype == theirs.dtype


def test_a_module_without_effect_and_arrays_of_no_size():
    model = Holder(w=liftnn.Param(jnp.zeros((0, 2))), b=liftnn.Param(X))
    found = liftnn.jacrev(lambda m: m.w.value.sum(0))(model)
    assert {k: x.shape for k, x in found.items()} == {"w": (2, 0, 2), "b": (2, 3)}
    assert liftnn.jacfwd(lambda m: None)(model) is None
    assert liftnn.jacrev(lambda m: (Holder(), "text"))(model)[1] is None


@EACH
def test_integers_are_refused_by_path(name):
    ours = transforms(name)[0]
    with raises(
        errors.ArgumentTypeError,
        "Cannot differentiate args[0].calls: its dtype is int32.\n"
        "Exclude it with `wrt` or `argnums`, convert it to a floating point dtype, or pass allow_int=True.",
    ):
        ours(tanh, wrt=...)(Affine(), X)
    with raises(
        errors.ArgumentTypeError,
        "Cannot differentiate the output.n: its dtype is int32.\n"
        "Convert it to a floating point dtype, or return it as auxiliary output with has_aux=True.",
    ):
        ours(lambda m: {"n": jnp.arange(2), "x": m.w})(Affine())


@EACH
def test_an_exception_changes_nothing_and_no_tracer_leaks(name):
    def fails(model):
        model.w.value, model.mode = model.w * 2, "eval"
        raise KeyError("half way")

    model = Affine()
    with pytest.raises(KeyError, match="half way"):
        transforms(name)[0](fails)(model)
    assert_same(model, Affine())
    with jax.checking_leaks():
        liftnn.jit(transforms(name)[0](tanh))(model, X)
