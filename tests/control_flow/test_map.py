"""`map` over arrays does what `jax.lax.map` does; over and with modules, what a Python loop does."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.jaxprs import scan_sizes
from tests.raising import raises
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine

import liftnn
from liftnn import errors

X = jnp.arange(1.0, 6.0)
BATCHES = pytest.mark.parametrize("batch_size", [None, 1, 2, 5, 7, 0])


def ensemble(n=5):
    return liftnn.vmap(Affine)(jnp.arange(1.0, n + 1))


def members(n=5):
    return [Affine(float(i + 1)) for i in range(n)]


def stacked(modules):
    return jax.tree.map(lambda *xs: jnp.stack(xs), *[liftnn.state(m) for m in modules])


CASES = {
    "an array": (lambda x: x**2, X),
    "a tree": (lambda t: {"sum": t["a"][0] + t["b"], "pair": (t["b"], None)}, {"a": [X], "b": 2 * X}),
    "a constant": (lambda x: jnp.ones(2), X),
    "a number": (lambda x: 3.0, X),
    "numpy": (lambda x: x * 2, np.ones((4, 2))),
    "keys": (lambda k: jax.random.normal(k), jax.random.split(jax.random.key(0), 3)),
    "no elements": (lambda x: x * jnp.ones(3), X[:0]),
}


@pytest.mark.sample(16)
@BATCHES
@pytest.mark.parametrize("f, xs", CASES.values(), ids=CASES)
def test_arrays_are_mapped_as_by_jax(f, xs, batch_size):
    ours, theirs = liftnn.map(f, xs, batch_size=batch_size), jax.lax.map(f, xs, batch_size=batch_size)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@BATCHES
@pytest.mark.parametrize("outer", [lambda f: f, liftnn.jit], ids=["plain", "jit"])
@pytest.mark.sample(3)
def test_each_slice_of_a_module_is_changed_as_in_a_loop(outer, batch_size):
    def call(model, xs):
        return liftnn.map(lambda pair: pair[0](pair[1]), (model, xs), batch_size=batch_size)

    model, plain = ensemble(), members()
    for _ in range(2):
        out = outer(call)(model, X)
        np.testing.assert_allclose(out, [m(x) for m, x in zip(plain, X, strict=True)])
    assert_same(liftnn.state(model), stacked(plain))
    assert not has_tracer(model)


@pytest.mark.sample(2)
@BATCHES
def test_new_modules_and_what_is_attached_to_slices_are_stacked(batch_size):
    def f(model):
        model.new, model.mode = [liftnn.Param(model.w * 2)], "eval"
        del model.b
        return Affine(3.0), model

    model = ensemble()
    new, same = liftnn.map(f, model, batch_size=batch_size)
    assert same is model
    assert model.new[0].value.tolist() == (2 * model.w.value).tolist()
    assert (model.mode, hasattr(model, "b")) == ("eval", False)
    assert_same(liftnn.state(new), stacked([Affine(3.0)] * 5))


def test_a_shared_module_is_written_in_turn_as_in_a_loop():
    def f(model, x):
        model.b.value = 0.5 * model.b + x
        return model(x)

    model, plain = Affine(2.0), Affine(2.0)
    for call in (functools.partial(f, model), functools.partial(lambda x, model: f(model, x), model=model)):
        np.testing.assert_allclose(liftnn.map(call, X), [f(plain, x) for x in X], rtol=1e-6)
    assert_same(model, plain)


def test_the_module_of_a_bound_method_or_a_module_itself_is_shared():
    model, plain = Affine(2.0), Affine(2.0)
    np.testing.assert_allclose(liftnn.map(model.loss, X), [plain.loss(x) for x in X], rtol=1e-6)
    np.testing.assert_allclose(liftnn.map(model, X), [plain(x) for x in X])
    assert int(model.calls.value) == int(plain.calls.value) == 10


def test_a_captured_module_is_shared():
    model, plain = Affine(2.0), Affine(2.0)

    def f(model, x):
        model.b.value = 0.5 * model.b + x
        return model(x)

    for outer in (lambda f: f, liftnn.jit):
        out = outer(lambda xs: liftnn.map(lambda y: f(model, y), xs))(X)
        np.testing.assert_allclose(out, [f(plain, x) for x in X], rtol=1e-6)
        assert_same(model, plain)
    with pytest.raises(
        errors.SharedWriteError, match=r"^model\.(b|calls) \(a \w+\) is shared by all elements"
    ):
        liftnn.map(lambda x: f(model, x), X, batch_size=2)


def test_batch_norm_sees_one_batch_after_the_other():
    xs = jax.random.normal(jax.random.key(0), (3, 4, 2))
    layer, plain = (liftnn.BatchNorm(2, momentum=0.5, rngs=liftnn.Rngs(0)) for _ in range(2))
    np.testing.assert_allclose(liftnn.map(layer, xs), [plain(x) for x in xs], rtol=1e-5, atol=1e-6)
    assert_same(layer, plain)


def test_random_keys_are_drawn_as_in_a_loop():
    layer, plain = (liftnn.Dropout(0.5, rngs=liftnn.Rngs(dropout=0)) for _ in range(2))
    for _ in range(2):
        out = liftnn.map(layer, jnp.ones((5, 8)))
        np.testing.assert_array_equal(out, [plain(x) for x in jnp.ones((5, 8))])
    assert int(layer.rngs.count) == int(plain.rngs.count) == 10


@pytest.mark.thorough
def test_in_batches_each_element_has_keys_of_its_own():
    rngs = liftnn.Rngs(0)
    draw = functools.partial(lambda rngs, x: jax.random.key_data(rngs()), rngs)
    keys = [rngs(), rngs()]
    rows = [liftnn.map(draw, X, batch_size=b) for b in (2, 2, 5)]
    keys.append(rngs())
    flat = [tuple(jax.random.key_data(k).tolist()) for k in keys]
    flat += [tuple(key) for row in rows for key in row.tolist()]
    assert len(set(flat)) == len(flat) == 18
    assert (int(rngs.default.count), rngs.default.key.shape) == (6, ())


def test_keys_in_batches_do_not_depend_on_the_size_of_the_batch():
    def draw(batch_size):
        f = functools.partial(lambda rngs, x: jax.random.normal(rngs()), liftnn.Rngs(0))
        return liftnn.map(f, X, batch_size=batch_size)

    np.testing.assert_array_equal(draw(2), draw(5))


def test_without_elements_nothing_is_written():
    model = Affine(2.0)
    assert liftnn.map(model, X[:0]).shape == (0, 3)
    assert int(model.calls.value) == 0
    layer = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))
    assert liftnn.map(layer, jnp.ones((0, 4)), batch_size=2).shape == (0, 4)
    assert int(layer.rngs.count) == 0


def test_a_shared_variable_may_hold_a_tree_or_a_number():
    def f(v, w, x):
        v.value = {"a": v.value["a"] + x, "b": (None, v.value["b"][1])}
        w.value = w + 1
        return w.value

    v, w = liftnn.Variable({"a": jnp.zeros(()), "b": (None, "text")}), liftnn.Variable(0)
    out = liftnn.map(functools.partial(f, v, w), X)
    assert out.tolist() == [1, 2, 3, 4, 5]
    assert (float(v.value["a"]), v.value["b"], int(w.value)) == (15.0, (None, "text"), 5)


def test_what_is_read_only_is_neither_carried_nor_stacked():
    model = Affine(2.0)
    jaxpr = jax.make_jaxpr(lambda x: liftnn.map(functools.partial(lambda m, x: m.w * x, model), x))(X)
    (scan,) = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "scan"]
    assert (scan_sizes(scan)[1], [v.aval.shape for v in scan.outvars]) == (0, [(5, 3)])


def test_gradients_and_nesting():
    def loss(model, xs):
        return liftnn.map(model.loss, xs).sum()

    model, plain = Affine(2.0), Affine(2.0)
    grads = liftnn.grad(loss)(model, X)
    expected = liftnn.grad(lambda m, xs: sum(m.loss(x) for x in xs))(plain, X)
    assert_same(grads, expected)
    assert int(model.calls.value) == 5

    rows = jnp.arange(6.0).reshape(2, 3)
    out = liftnn.vmap(lambda m, row: liftnn.map(m, row), in_axes=(None, 0))(model, rows)
    assert out.shape == (2, 3, 3)
    assert int(model.calls.value) == 8


def test_a_variable_in_xs_that_is_shared_too_can_only_be_used_as_an_element():
    v = liftnn.Param(X)
    with raises(
        errors.AliasingError,
        "args[0].v was used, but it is also args[1], with the prefix 0: here only args[1] has a value.\n"
        "Use the argument instead, or read what you need in a local variable before the call.",
    ):
        liftnn.map(Reads(v).scale, v)
    np.testing.assert_array_equal(liftnn.map(Reads(v).read, v), X)


class Reads(liftnn.Module):
    def __init__(self, v):
        self.v = v

    def read(self, x):
        return x.value

    def scale(self, x):
        return x.value * self.v.value.sum()


@pytest.mark.parametrize("error", [ValueError, KeyError, errors.StructureError])
def test_an_exception_in_the_function_changes_nothing(error):
    def fails(model, x):
        model.b.value = model.b + x
        raise error("my own")

    model = Affine()
    with pytest.raises(error, match="my own"):
        liftnn.map(functools.partial(fails, model), X)
    assert_same(model, Affine())


BATCH_SIZES = {
    "int": 2,
    "bool": True,
    "numpy int": np.int32(2),
    "array of rank 0": np.array(3),
    "jax array": jnp.int32(2),
}


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", BATCH_SIZES)
def test_a_batch_size_is_any_integer_as_in_jax(name):
    xs = jnp.arange(5.0)
    ours, theirs = (of(jnp.sin, xs, batch_size=BATCH_SIZES[name]) for of in (liftnn.map, jax.lax.map))
    assert_same(ours, theirs)
    layer = liftnn.Linear(3, 2, rngs=liftnn.Rngs(0))
    stacked = jnp.ones((5, 3))
    ours = liftnn.map(layer, stacked, batch_size=BATCH_SIZES[name])
    kernel, bias = layer.kernel.value, layer.bias.value
    assert_same(ours, jax.lax.map(lambda x: x @ kernel + bias, stacked, batch_size=BATCH_SIZES[name]))


@pytest.mark.parametrize("batch_size", [2.0, "2", (2,)], ids=repr)
def test_a_batch_size_that_is_not_an_integer_is_a_type_error_as_in_jax(batch_size):
    for of in (jax.lax.map, liftnn.map):
        with pytest.raises(TypeError):
            of(jnp.sin, jnp.arange(5.0), batch_size=batch_size)


def test_a_traced_batch_size_is_a_type_error_as_in_jax():
    for of in (jax, liftnn):
        loop = getattr(of, "map", jax.lax.map)
        with pytest.raises(TypeError):
            of.jit(lambda size, loop=loop: loop(jnp.sin, jnp.arange(5.0), batch_size=size))(2)
