"""In nested transforms an object that is an argument and captured is one object, as in the plain call."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.effects import Model
from tests.same import assert_same
from tests.transform_table import IMPOSSIBLE, TRANSFORMS, WRITING, some

X = jnp.linspace(-1.0, 1.0, 3)
OUTER = ("jit", "remat", "grad", "scan", "vmap", "cond")
QUICK = ("jit", "remat", "scan", "grad")


def write_both(a, b, x):
    """Writes through two names in turn, and reads what the other one wrote."""
    a.first.calls.value = b.first.calls + 1
    b.first.calls.value = a.first.calls * 10 + 1
    a.first.b.value = b.first.b + x
    b.second.w.value = a.first.w * 2
    return a.first.b * b.first.calls + x @ b.second.w


def pass_the_module(transform):
    """The captured model and the argument are one."""

    def outer(model, x):
        return transform(lambda m, x: write_both(m, model, x))(model, x)

    return outer


def pass_and_shadow(transform):
    """A function of a function captures it."""

    def outer(model, x):
        def helper(m, x):
            return write_both(model, m, x)

        return transform(lambda m, x: helper(m, x))(model, x)

    return outer


def pass_the_owner(transform):
    """What is captured is a part of the argument, and a Variable of a part."""

    def outer(model, x):
        block, weight = model.first, model.second.w

        def inner(m, x):
            block.calls.value = m.first.calls + 1
            m.first.b.value = block.b + x
            weight.value = m.first.w * 2
            return block.b * m.first.calls + x @ block.w

        return transform(inner)(model, x)

    return outer


def pass_in_a_list(transform):
    """What is captured is found through a list."""

    def outer(model, x):
        models = {"all": [model, model.layers[0]]}

        def inner(m, x):
            models["all"][1].calls.value = m.layers[0].calls + 1
            m.options["inner"]["block"].b.value = models["all"][0].layers[0].b + x
            return write_both(models["all"][0], m, x)

        return transform(inner)(model, x)

    return outer


FORMS = (pass_the_module, pass_and_shadow, pass_the_owner, pass_in_a_list)


def assert_acts_alike(form, outer, inner, table=TRANSFORMS):
    model, plain = Model(), Model()
    expected = form(lambda f: f)(plain, X)
    assert_same((TRANSFORMS[outer](form(table[inner]))(model, X), model), (expected, plain))


@pytest.mark.sample(4)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "inner", [pytest.param(n, marks=() if n in QUICK else pytest.mark.thorough) for n in WRITING]
)
def test_in_jit_both_names_are_one_object(inner, form):
    assert_acts_alike(form, "jit", inner)


@pytest.mark.thorough
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "outer, inner",
    some([p for p in itertools.product(OUTER[1:], WRITING) if p not in IMPOSSIBLE], "LIFTNN_ALIAS_PAIRS", 30),
)
def test_in_every_pair_of_transforms_both_names_are_one_object(outer, inner, form):
    assert_acts_alike(form, outer, inner)


@pytest.mark.sample(6)
@pytest.mark.parametrize("form", [pass_the_module, pass_the_owner])
@pytest.mark.parametrize(
    "outer, middle, inner", some(list(itertools.product(OUTER, repeat=3)), "LIFTNN_TRIPLES", 3)
)
def test_three_deep_both_names_are_one_object(outer, middle, inner, form):
    def deep(transform):
        def call(model, x):
            return TRANSFORMS[middle](lambda m, x: form(transform)(model, x))(model, x)

        return call

    assert_acts_alike(deep, outer, inner)


# --- a Variable that is an argument, and its owner, which is captured

OF_VARIABLES = {
    "jit": lambda f: liftnn.jit(f),
    "remat": lambda f: liftnn.remat(f),
    "cond": lambda f: lambda v, x: liftnn.cond(jnp.array(True), f, f, v, x),
    "scan": lambda f: liftnn.scan(f, length=1, in_axes=(None, None), out_axes=None),
    "vmap": lambda f: liftnn.vmap(f, in_axes=(None, None), out_axes=None, axis_size=1),
    "grad": lambda f: (
        lambda v, x: liftnn.grad(lambda v, x: (x.sum(), f(v, x)), argnums=1, has_aux=True)(v, x)[1]
    ),
    "fori_loop": lambda f: lambda v, x: liftnn.fori_loop(0, 1, lambda i, s: (s[0], f(*s)), (v, x))[1],
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("inner", OF_VARIABLES)
@pytest.mark.parametrize("outer", ["jit", pytest.param("remat", marks=pytest.mark.thorough)])
def test_a_variable_and_its_owner_are_one(outer, inner):
    def step(transform):
        def call(model, x):
            def inner(v, x):
                v.value = model.first.b + x
                model.first.b.value = v * 2
                return v + model.first.b

            return transform(inner)(model.first.b, x)

        return call

    assert_acts_alike(step, outer, inner, table=OF_VARIABLES)


# --- derivatives


@pytest.mark.parametrize("outer", ["jit", "remat", "cond", "vmap", "scan"])
def test_the_gradient_is_that_of_both_names_together(outer):
    def gradients(model, x):
        def loss(m, x):
            return 3 * m.first.b.value.sum() + (model.first.b.value**2 * x).sum()

        return liftnn.grad(loss)(model, x)["first"]["b"].value

    model = Model()
    model.first.b.value = jnp.arange(3.0)
    expected = jax.grad(lambda b: 3 * b.sum() + (b**2 * X).sum())(jnp.arange(3.0))
    assert_same(gradients(model, X), expected)
    assert_same(TRANSFORMS[outer](gradients)(model, X), expected)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_two_arguments_that_are_one_are_one_in_each_step_of_a_scan(steps):
    def inner(a, b):
        a.first.calls.value = b.first.calls + 1
        b.first.calls.value = a.first.calls * 2

    def call(model, x):
        return liftnn.scan(inner, in_axes=(None, None), out_axes=None, length=steps)(model, model)

    model, plain = Model(), Model()
    for _ in range(steps):
        inner(plain, plain)
    liftnn.jit(call)(model, X)
    assert_same(model, plain)
