"""Calls without modules are JAX's, and calls with modules are noticed, however late that is."""

from __future__ import annotations

import functools
import pickle

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.same import assert_same, has_tracer
from tests.user_modules import Affine, Holder

X = jnp.arange(1.0, 4.0)


def counted(f):
    @functools.wraps(f)
    def call(*args, **kwargs):
        call.n += 1
        return f(*args, **kwargs)

    call.n = 0
    return call


# --- what is found out when the function has run


RETURNS = {
    "module": lambda x: Affine(2.0, size=3),
    "Variable": lambda x: liftnn.Param(x),
    "module in a dict": lambda x: {"a": (x, Affine())},
    "text": lambda x: (x, "text"),
    "function": lambda x: (x, jnp.sin),
}


@pytest.mark.parametrize("transform", [liftnn.jit, liftnn.vmap, liftnn.checkpoint], ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", RETURNS)
def test_a_function_that_returns_what_jax_cannot_take(transform, name):
    f, reference = counted(RETURNS[name]), RETURNS[name]
    call = transform(f)
    assert type(call(X)) is type(reference(X))
    assert f.n <= 2
    first = f.n
    for _ in range(3):
        call(X)
    assert f.n - first == (0 if transform is liftnn.jit else 3)


def test_models_made_by_vmap_are_those_of_a_loop():
    keys = jax.random.split(jax.random.key(0), 4)
    make = lambda key: liftnn.Linear(2, 3, rngs=liftnn.Rngs(key))  # noqa: E731
    for _ in range(2):
        stacked = liftnn.vmap(make)(keys)
        for i, key in enumerate(keys):
            assert_same(jax.tree.map(lambda x, i=i: x[i], liftnn.state(stacked)), liftnn.state(make(key)))


class Unseen:
    """Holds a module where no search looks."""

    def __init__(self, model):
        self.iterator = lambda: iter([model])

    def __iter__(self):
        return self.iterator()


STEPS = {"scan": 3, "while_loop": 2, "fori_loop": 3}
LATE = {
    "jit": lambda f: liftnn.jit(lambda x: f(x))(X),
    "grad": lambda f: liftnn.grad(lambda x: f(x).sum())(X),
    "vmap": lambda f: liftnn.vmap(lambda x, y: f(x), in_axes=(None, 0), out_axes=0)(X, X),
    "scan": lambda f: liftnn.scan(lambda c, x: (c, f(c)))(X, X),
    "cond": lambda f: liftnn.cond(True, f, f, X),
    "while_loop": lambda f: liftnn.while_loop(lambda c: c[1] < 2, lambda c: (f(c[0]), c[1] + 1), (X, 0)),
    "fori_loop": lambda f: liftnn.fori_loop(0, 3, lambda i, c: f(c), X),
    "checkpoint": lambda f: liftnn.checkpoint(lambda x: f(x))(X),
    "jvp": lambda f: liftnn.jvp(f, (X,), (X,)),
    "vjp": lambda f: liftnn.vjp(f, X)[1](X),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", LATE)
def test_a_module_that_no_search_finds_is_written_like_any_other(name):
    model = Affine(2.0)
    held = Unseen(model)

    def f(x):
        (m,) = held
        m.calls.value = m.calls + 1
        return m.w * x + m.b

    first = LATE[name](f)
    steps = int(model.calls.value)
    assert steps == STEPS.get(name, 1)
    model.w.value = model.w * 2
    second = LATE[name](f)
    assert int(model.calls.value) == 2 * steps
    assert not has_tracer(model)
    fresh = Affine(2.0)
    fresh.w.value = fresh.w * 2
    held = Unseen(fresh)
    assert_same(second, LATE[name](f))
    assert jax.tree.structure(first) == jax.tree.structure(second)


def test_a_name_that_leads_to_a_module_later():
    held = {"model": None}

    def f(x):
        return x if held["model"] is None else held["model"].w * x

    jitted, mapped = liftnn.jit(f), liftnn.vmap(f)
    for _ in range(3):
        assert_same((jitted(X), mapped(X)), (X, X))
    held["model"] = Affine(3.0, size=1)
    for _ in range(3):
        assert_same(jitted(X), 3 * X)
    held["model"].w.value = held["model"].w * 2
    assert_same(jitted(X), 6 * X)
    held["model"] = None
    assert_same(jitted(X), X)


def test_modules_and_arrays_take_turns_in_one_function():
    f = counted(lambda m, x: m.w * x if isinstance(m, Affine) else m * x)
    call = liftnn.jit(f)
    for i in range(4):
        assert_same(call(Affine(2.0), X), 2 * X)
        assert_same(call(jnp.array(3.0), X), 3 * X)
        assert_same(call(jnp.array(4.0), X + i), 4 * (X + i))
    assert f.n == call.n_traces == 2


# --- what differs from JAX on purpose


def test_none_is_zero():
    _, pull = liftnn.vjp(lambda x: (x, 2 * x, jnp.arange(3)), X)
    assert_same(pull((X, None, None)), (X,))
    assert_same(jax.tree.map(lambda p: p((X, None, None)), [pull], is_leaf=lambda x: x is pull), [(X,)])
    _, push = liftnn.linearize(lambda x, y: x * y, X, X)
    assert_same(push(None, X), X * X)
    leaves, treedef = jax.tree.flatten(pull)
    assert_same(treedef.unflatten(leaves)((X, None, None)), (X,))


def test_a_negative_static_number_is_that_of_the_last_parameter():
    f = counted(lambda x, n=2: x**n)
    call = liftnn.jit(f, static_argnums=-1)
    assert_same((call(X), call(X, 3)), (X**2, X**3))


# --- errors


@pytest.mark.parametrize("name", LATE)
def test_an_error_comes_through_and_the_function_has_run_once(name):
    def fails(x):
        raise KeyError("my own")

    f = counted(fails)
    with pytest.raises(KeyError, match="my own"):
        LATE[name](f)
    assert f.n == 1


def test_a_function_that_fails_at_first_is_traced_again():
    ready = []

    def f(x):
        if not ready:
            raise ValueError("not ready")
        return x * 2

    call = liftnn.jit(f)
    for _ in range(2):
        with pytest.raises(ValueError, match="not ready"):
            call(X)
    ready.append(1)
    assert_same(call(X), X * 2)


# --- compiled functions


def double(x):
    return x * 2


def test_a_compiled_function_is_a_value():
    call = liftnn.jit(double, static_argnums=())
    for copied in (
        pickle.loads(pickle.dumps(call)),
        cloudpickle.loads(cloudpickle.dumps(liftnn.jit(lambda x: x * 2))),
    ):
        assert_same(copied(X), 2 * X)
    model = Holder(act=liftnn.jit(lambda x: x * 2))
    assert_same(liftnn.jit(lambda m, x: m.act(x))(model, X), 2 * X)
    assert_same(liftnn.clone(model).act(X), 2 * X)


def test_attributes_of_a_function_are_those_of_the_compiled_one():
    def f(x):
        return x

    f.note, f._bound = "mine", "mine too"
    for transform in (liftnn.jit, liftnn.vmap, liftnn.grad):
        assert transform(f).note == "mine"
    assert_same(liftnn.jit(f)(X), X)


# --- with modules, what JAX takes is taken


def counting():
    n = 0

    def f(v, x):
        nonlocal n
        n += 1
        v.value = v + x
        return x + 1

    return f


def test_branches_and_bodies_with_modules_may_count():
    v = liftnn.Variable(jnp.zeros(()))
    assert float(liftnn.cond(True, counting(), counting(), v, 1.0)) == 2.0
    body = counting()
    assert float(liftnn.while_loop(lambda c: c[1] < 3, lambda c: (c[0], body(*c)), (v, 0.0))[1]) == 3.0
    body = counting()
    assert float(liftnn.fori_loop(0, 3, lambda i, c: (c[0], body(*c)), (v, 0.0))[1]) == 3.0
    assert float(v.value) == 1 + (0 + 1 + 2) + (0 + 1 + 2)


def test_loops_with_modules_take_numpy_arrays_of_64_bits():
    v = liftnn.Variable(jnp.zeros(()))
    out = liftnn.while_loop(lambda c: c[1] < 2, lambda c: (c[0], c[1] + 1, c[2] * 2), (v, 0, np.ones(2)))
    assert out[0] is v
    assert_same(out[2], jnp.full(2, 4.0))


def test_loops_with_modules_run_in_python_under_disable_jit():
    v = liftnn.Variable(jnp.zeros(()))

    def body(c):
        c[0].value = c[0] + float(c[1])
        return c[0], float(c[1]) + 1

    def fori(i, c):
        c.value = c + float(i)
        return c

    with jax.disable_jit():
        assert liftnn.while_loop(lambda c: float(c[1]) < 3, body, (v, 0.0))[1] == 3.0
        assert liftnn.fori_loop(0, 3, fori, v) is v
        assert liftnn.cond(v.value > 1, lambda v: float(v.value), lambda v: 0.0, v) == 6.0
        assert liftnn.switch(9, [lambda v: 0.0, lambda v: float(v.value)], v) == 6.0


def test_a_rule_with_modules_gives_cotangents_as_in_jax():
    f = liftnn.custom_vjp(lambda m, x, i: m.w * x)
    f.defvjp(lambda m, x, i: (m.w * x, None), lambda _, g: [None, g.astype("float32"), jnp.zeros(3, int)])
    grads = liftnn.grad(lambda x: f(Affine(), x, jnp.arange(3)).sum().astype("float32"))(X.astype("bfloat16"))
    assert grads.dtype == "bfloat16"


MAKES = {
    "a class of the user's": lambda key: Affine(2.0),
    "a class of liftnn's": lambda key: liftnn.Linear(2, 3, rngs=liftnn.Rngs(key)),
    "by another function": lambda key: make_affine(),
    "in a dict of classes": lambda key: KINDS["affine"](2.0),
}
KINDS = {"affine": Affine}


def make_affine():
    return Affine(2.0)


@pytest.mark.parametrize("name", MAKES)
def test_a_function_that_makes_modules_runs_once(name):
    f = counted(MAKES[name])
    liftnn.eval_shape(f, jax.random.key(0))
    assert f.n == 1
    liftnn.vmap(f)(jax.random.split(jax.random.key(0), 3))
    assert f.n == 2
    call = liftnn.jit(f)
    call(jax.random.key(0)), call(jax.random.key(1))
    assert f.n == 3
