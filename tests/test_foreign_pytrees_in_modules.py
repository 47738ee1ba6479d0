"""Modules that hold pytrees of other libraries, and such pytrees that hold modules: the plain call is the oracle."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox
import flax.struct
import jax.numpy as jnp
import pytest

import liftnn
from tests.foreign_pytrees import TREES, USUAL, Checked, Plain, X, assert_same, chosen
from tests.test_foreign_pytrees import by_jax


class Holder(liftnn.Module):
    """A module with a pytree where a module can have one."""

    def __init__(self, make, x):
        self.w = liftnn.Param(x[0])
        self.attribute = make(x)
        self.items = [make(x)]
        self.value = liftnn.BatchStat(make(x))


def read(model, make, x):
    return make(model.w * x + model.attribute.x + model.items[0].x + model.value.value.x)


def write_value(model, make, x):
    model.value.value = make(model.value.value.x + 1)
    return read(model, make, x)


def write_attribute(model, make, x):
    model.attribute = make(model.attribute.x + 1)
    return read(model, make, x)


def return_module(model, make, x):
    return model, {"a": make(x)}, Holder(make, x)


EFFECTS = {f.__name__: f for f in (read, write_value, write_attribute, return_module)}


def _aux(f):
    return lambda model, x: ((model.w.value.sum() * x).sum(), f(model, x))


AROUND = {
    "jit": lambda f, m, x: liftnn.jit(f)(m, x),
    "jit, by name": lambda f, m, x: liftnn.jit(lambda *, m, x: f(m, x))(m=m, x=x),
    "grad": lambda f, m, x: liftnn.grad(_aux(f), has_aux=True)(m, x)[1],
    "vjp": lambda f, m, x: liftnn.vjp(_aux(f), m, x, has_aux=True)[2],
    "jvp": lambda f, m, x: liftnn.jvp(_aux(f), (m, x), ({"w": x[0]}, x), has_aux=True)[2],
    "cond": lambda f, m, x: liftnn.cond(True, f, f, m, x),
    "remat": lambda f, m, x: liftnn.remat(f)(m, x),
    "checkify": lambda f, m, x: liftnn.checkify(f)(m, x)[1],
}


COMPARED = {"jit": "jit, twice", "jit, by name": "jit, twice", "cond": "cond"}
"""Transforms in which JAX compares structures, with what it then must take."""


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("around, tree", chosen(AROUND))
@pytest.mark.sample(20)
def test_a_module_that_holds_a_pytree_acts_as_in_the_plain_call(around, tree, effect):
    make, f = TREES[tree], EFFECTS[effect]
    if around in COMPARED:
        by_jax(COMPARED[around], make)
    plain, model = Holder(make, X), Holder(make, X)
    for _ in range(2):
        expected = f(plain, make, X)
        out = AROUND[around](lambda m, x: f(m, make, x), model, X)
        assert_same(out, expected)
        assert_same(model, plain)


class Train(equinox.Module):
    model: Any
    step: Any


class Pair(NamedTuple):
    model: Any
    step: Any


@flax.struct.dataclass
class State:
    model: Any
    step: Any


def count(t, x):
    t.model.w.value += 1
    return t.model.w * x + t.step


HOLDERS = {
    "jit": lambda f, t, x: liftnn.jit(f)(t, x),
    "jit, in a tree": lambda f, t, x: liftnn.jit(lambda d, x: f(d["a"], x))({"a": t}, x),
    "jit, returned": lambda f, t, x: liftnn.jit(lambda t, x: (f(t, x), t))(t, x)[0],
    "grad": lambda f, t, x: liftnn.grad(lambda t, x: (t.model.w.value.sum(), f(t, x)), has_aux=True)(t, x)[1],
    "vmap": lambda f, t, x: liftnn.vmap(f, in_axes=(None, 0))(t, x),
    "scan": lambda f, t, x: liftnn.scan(lambda c, x: (c, f(c, x)))(t, x[None])[1][0],
    "fori_loop": lambda f, t, x: liftnn.fori_loop(0, 1, lambda i, c: (c[0], f(c[0], x)), (t, x))[1],
    "cond": lambda f, t, x: liftnn.cond(True, f, f, t, x),
    "remat": lambda f, t, x: liftnn.remat(f)(t, x),
}


@pytest.mark.parametrize("around", HOLDERS)
@pytest.mark.parametrize("cls", [Plain, Train, Pair, State])
@pytest.mark.sample(3)
def test_a_pytree_that_holds_a_module_acts_as_in_the_plain_call(around, cls):
    plain, model = Holder(Checked, X), Holder(Checked, X)
    t = cls(model, jnp.array(0.5))
    expected = count(cls(plain, jnp.array(0.5)), X)
    assert_same(HOLDERS[around](count, t, X), expected)
    assert t.model is model
    assert_same(model.w.value, plain.w.value)


@pytest.mark.parametrize("tree", USUAL)
def test_a_captured_module_that_holds_a_pytree_acts_as_in_the_plain_call(tree):
    make = TREES[tree]
    plain, model = Holder(make, X), Holder(make, X)
    expected = write_value(plain, make, X)
    assert_same(liftnn.jit(lambda x: write_value(model, make, x))(X), expected)
    assert_same(model, plain)


def test_a_returned_pytree_holds_the_module_that_was_given():
    t = Train(Holder(Checked, X), jnp.array(0))
    out = liftnn.jit(lambda t: Train(t.model, t.step + 1))(t)
    assert out.model is t.model
    assert int(out.step) == 1


@pytest.mark.parametrize("reductions", [None, {liftnn.BatchStat: jnp.mean}])
def test_a_prefix_may_be_a_pytree_of_the_class_that_holds_a_module(reductions):
    def f(t):
        t.model.value.value = Checked(t.model.value.value.x + (0 if reductions is None else t.step))
        return t

    model = Holder(Checked, X)
    axes = Plain(None, 0)
    mapped = liftnn.vmap(f, in_axes=(axes,), out_axes=axes, reduce_writes=reductions)
    out = mapped(Plain(model, jnp.arange(3.0)))
    assert out.model is model
    assert_same(out.step, jnp.arange(3.0))
    assert_same(model.value.value.x, X + (0 if reductions is None else 1))
