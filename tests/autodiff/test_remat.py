"""`remat`: the numbers and effects of the plain call, the memory of `jax.checkpoint`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from tests.same import assert_same
from tests.user_modules import Affine, Holder, Pair, step

import liftnn

X = jnp.arange(3.0)


class Layer(liftnn.Module):
    """A layer with everything that a recomputation could do twice."""

    def __init__(self, rngs, size=8):
        self.linear = liftnn.Linear(size, size, rngs=rngs)
        self.norm = liftnn.BatchNorm(size, rngs=rngs)
        self.dropout = liftnn.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return jnp.sin(self.dropout(self.norm(checkpoint_name(self.linear(x), "linear"))))


def layers(depth):
    """Layers with one Rngs among them."""
    rngs = liftnn.Rngs(0)
    return Holder(layers=[Layer(rngs) for _ in range(depth)])


def loss_with(wrap):
    """A loss over the layers, each of them wrapped."""

    def loss(model, x):
        for layer in model.layers:
            x = wrap(layer)(x)
        return (x**2).sum()

    return loss


@pytest.mark.thorough
@pytest.mark.parametrize(
    "policy",
    [None, *(pytest.param(p, marks=pytest.mark.thorough) for p in ("dots_saveable", "everything_saveable"))],
)
@pytest.mark.parametrize("jitted", [False, True])
def test_gradients_statistics_and_counts_are_those_of_the_plain_call(policy, jitted):
    policy = policy and getattr(jax.checkpoint_policies, policy)
    model, reference = layers(2), layers(2)
    x = jnp.linspace(-1.0, 1.0, 32).reshape(4, 8)
    grad = liftnn.value_and_grad(loss_with(liftnn.remat(policy=policy)))
    actual = (liftnn.jit(grad) if jitted else grad)(model, x)
    expected = liftnn.value_and_grad(loss_with(lambda layer: layer))(reference, x)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
    for path, x in actual[1].flat().items():
        np.testing.assert_allclose(x.value, expected[1].flat()[path].value, rtol=1e-3, atol=1e-3)
    assert_same(model, reference)


def _temp_bytes(grad, *args):
    return jax.jit(grad).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.thorough
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_memory_is_that_of_jax_checkpoint(wrapped):
    depth, size = 12, 16

    def block(w, x):
        for _ in range(4):
            x = jnp.sin(x @ w)
        return x

    def ours(model, x):
        call = liftnn.remat(lambda w, x: block(w.value, x)) if wrapped else lambda w, x: block(w.value, x)
        for w in model.weights:
            x = call(w, x)
        return x.sum()

    def theirs(weights, x):
        call = jax.checkpoint(block) if wrapped else block
        for w in weights:
            x = call(w, x)
        return x.sum()

    weights = [jnp.eye(size) for _ in range(depth)]
    model, x = Holder(weights=[liftnn.Param(w) for w in weights]), jnp.ones((256, size))
    compiled = liftnn.jit(liftnn.grad(ours)).lower(model, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes == _temp_bytes(jax.grad(theirs), weights, x)


def test_less_is_stored():
    def count(wrap):
        def f(model, x):
            def loss(x):
                return wrap(lambda m, x: jnp.sin(jnp.sin(jnp.sin(x * m.w))))(model, x).sum()

            _, pullback = jax.vjp(loss, x)
            return jax.tree.leaves(pullback)

        return sum(np.size(leaf) for leaf in liftnn.eval_shape(f, Affine(size=3), X) if leaf.shape)

    assert count(liftnn.remat) < count(lambda f: f)


def test_a_name_can_be_saved():
    policy = jax.checkpoint_policies.save_only_these_names("linear")
    model, x = layers(1), jnp.ones((4, 8))

    def text(wrap):
        return str(liftnn.make_jaxpr(liftnn.grad(loss_with(wrap)))(model, x))

    # dot_general: forward and the two of the backward pass; once more if the name's value is computed again
    assert text(liftnn.remat(policy=policy)).count("dot_general") < text(liftnn.remat).count("dot_general")


def test_static_arguments_are_passed_as_they_are():
    def f(model, k, *, flag):
        assert type(k) is int
        assert flag is True
        return model(X, k)

    model = Affine(2.0)
    wrapped = liftnn.remat(f, static_argnums=1, static_argnames="flag")
    assert wrapped(model, 3, flag=True).tolist() == (3 * 2.0 * X).tolist()
    assert int(model.calls.value) == 1


class Switch(Affine):
    """A module whose method branches on a flag."""

    def scale(self, x, flag=True):
        return self(x) if flag else 3 * x


OPTIONS = [{"static_argnames": "flag"}, {"static_argnames": ("flag",)}, {"static_argnums": 2}]


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
@pytest.mark.parametrize("way", [lambda model: (Switch.scale, (model,)), lambda model: (model.scale, ())])
def test_static_positions_and_names_imply_each_other_as_in_jit(way, options):
    for transform in (liftnn.jit, liftnn.remat):
        f, first = way(Switch(2.0))
        transformed = transform(f, **options)
        for out in (
            transformed(*first, X, False),
            transformed(*first, X, flag=False),
            transformed(*first, x=X, flag=False),
        ):
            assert out.tolist() == (3 * X).tolist()
        assert transformed(*first, X).tolist() == (2 * X).tolist()


@pytest.mark.parametrize("options", [{"static_argnames": "flag"}, {"static_argnums": 1}], ids=repr)
def test_static_positions_and_names_imply_each_other_without_modules(options):
    def f(x, flag=True):
        return jnp.sin(x).sum() if flag else x.sum()

    wrapped = liftnn.remat(f, **options)
    for args, kwargs in [((X,), {}), ((X, False), {}), ((X,), {"flag": False}), ((X, True), {})]:
        assert wrapped(*args, **kwargs) == f(*args, **kwargs)
    assert jax.grad(wrapped)(X, flag=True).tolist() == jnp.cos(X).tolist()


def test_it_is_a_decorator_for_methods_and_takes_modules():
    class Net(liftnn.Module):
        def __init__(self):
            self.inner = Affine(2.0)

        @liftnn.remat(prevent_cse=False)
        def __call__(self, x):
            return liftnn.checkpoint(self.inner)(x)

    net = Net()
    assert net(X).tolist() == (2 * X).tolist()
    assert liftnn.grad(lambda net: net(X).sum())(net)["inner"]["b"].value.tolist() == [1.0] * 3
    assert int(net.inner.calls.value) == 2


def test_a_shared_variable_gets_one_gradient():
    model, reference = Pair(), Pair()
    actual = liftnn.grad(lambda m, x: (liftnn.remat(step)(m, x) ** 2).sum())(model, X)
    expected = liftnn.grad(lambda m, x: (m(x) ** 2).sum())(reference, X)
    assert list(actual.flat()) == list(expected.flat())
    np.testing.assert_allclose(actual["first"]["w"].value, expected["first"]["w"].value, rtol=1e-6)


def test_what_is_read_through_a_closure_is_not_stale():
    model = Affine(1.0)
    wrapped = liftnn.remat(lambda x: model.w.value * x)
    assert wrapped(X).tolist() == X.tolist()
    model.w.value = jnp.full(3, 5.0)
    assert wrapped(X).tolist() == (5 * X).tolist()


def test_a_closure_over_a_tracer_works_in_each_trace():
    scale = [None]
    wrapped = liftnn.remat(lambda m, x: m(x) * scale[0])

    def loss(model, k):
        scale[0] = k
        return wrapped(model, X).sum()

    model = Affine(1.0)
    for _ in range(2):
        assert float(jax.grad(lambda k: loss(liftnn.clone(model), k))(2.0)) == 3.0


class Config:
    """An object that is not hashable and not equal to its copies."""

    __hash__ = None

    def __init__(self, factor):
        self.factor = factor

    def __eq__(self, other):
        raise TypeError


STATIC = {
    "a dict": (lambda x, k: x * k["a"], {"a": 2.0}),
    "a list": (lambda x, k: x * len(k), [1, 2]),
    "an object": (lambda x, k: x * k.factor, Config(3.0)),
    "an array": (lambda x, k: jnp.sin(x) if k else x, jnp.array(True)),
    "a numpy array": (lambda x, k: jnp.sin(x) if k[0] else x, np.array([True])),
    "a number": (lambda x, k: jnp.sin(x) if k else x, 1),
}


@pytest.mark.parametrize("argnums", [1, -1, (1,), [1]], ids=repr)
@pytest.mark.parametrize("name", STATIC)
def test_static_arguments_need_not_be_hashable_as_in_jax(name, argnums):
    f, static = STATIC[name]
    ours, theirs = liftnn.remat(f, static_argnums=argnums), jax.checkpoint(f, static_argnums=1)
    assert_same(ours(2.0, static), theirs(2.0, static))
    assert_same(jax.grad(ours)(2.0, static), jax.grad(theirs)(2.0, static))


@pytest.mark.parametrize("name", ["a dict", "a list", "a number"])
def test_nor_beside_a_module(name):
    f, static = STATIC[name]

    def with_module(model, x, k):
        model.w.value = model.w + 1
        return f(x, k) * model.w.sum()

    model = Affine(1.0)
    out, grads = liftnn.value_and_grad(liftnn.remat(with_module, static_argnums=2), argnums=1)(
        model, 2.0, static
    )
    expected = jax.value_and_grad(jax.checkpoint(lambda x, k: f(x, k) * 6.0, static_argnums=1))(2.0, static)
    assert_same((out, grads), expected)
    assert model.w.value.tolist() == [2.0] * 3
