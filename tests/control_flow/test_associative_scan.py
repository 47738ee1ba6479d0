"""`associative_scan` over arrays does what JAX's does; over modules, what a loop over the elements does."""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises
from tests.same import assert_same, has_tracer
from tests.user_modules import Holder

import liftnn
from liftnn import errors

X = jnp.arange(1.0, 8.0)
TABLE = jnp.arange(12.0).reshape(3, 4) + 1


class Step(liftnn.Module):
    """The map `x -> a * x + b`."""

    def __init__(self, a, b):
        self.a, self.b = liftnn.Param(a, tag="a"), liftnn.BatchStat(b)


def compose(f, g):
    """First f, then g."""
    return Step(g.a * f.a, g.a * f.b + g.b)


def compose_in_place(f, g):
    f.a.value, f.b.value = g.a * f.a, g.a * f.b + g.b
    return f


def loop(a, b):
    """All partial compositions, one after the other."""
    rows = [(a[0], b[0])]
    for x, y in zip(a[1:], b[1:], strict=True):
        rows.append((x * rows[-1][0], x * rows[-1][1] + y))
    return np.array(rows).T


CASES = {
    "a sum": (jnp.add, X, {}),
    "an operator": (operator.mul, X, {}),
    "from the end": (operator.add, X, {"reverse": True}),
    "another axis": (operator.add, TABLE, {"axis": 1}),
    "the last axis": (operator.add, TABLE, {"axis": -1}),
    "a tree": (lambda a, b: {"x": [a["x"][0] + b["x"][0]], "y": b["y"]}, {"x": [X], "y": X}, {}),
    "different ranks": (lambda a, b: (a[0] + b[0], a[1] * b[1]), (TABLE, X[:3]), {}),
    "one element": (operator.add, X[:1], {}),
    "no elements": (operator.add, X[:0], {}),
    "numpy": (operator.add, np.arange(5), {}),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("fn, elems, options", CASES.values(), ids=CASES)
def test_arrays_are_scanned_as_by_jax(fn, elems, options):
    ours = liftnn.associative_scan(fn, elems, **options)
    theirs = jax.lax.associative_scan(fn, elems, **options)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_options_may_be_positional_as_in_jax():
    ours = liftnn.associative_scan(operator.add, TABLE, True, 1)
    np.testing.assert_array_equal(ours, jax.lax.associative_scan(operator.add, TABLE, True, 1))


@pytest.mark.parametrize("fn", [compose, compose_in_place])
@pytest.mark.parametrize("outer", [lambda f: f, liftnn.jit], ids=["plain", "jit"])
def test_modules_are_combined_as_in_a_loop(fn, outer):
    steps = Step(X, X + 1)
    for _ in range(2):
        out = outer(lambda s: liftnn.associative_scan(fn, s))(steps)
        np.testing.assert_allclose([out.a.value, out.b.value], loop(X, X + 1), rtol=1e-5)
        assert (type(out), type(out.b), out.a.tag) == (Step, liftnn.BatchStat, "a")
        assert_same(steps, Step(X, X + 1))
        assert not has_tracer((out, steps))


def test_the_function_may_map_over_its_elements():
    def one(f, g):
        assert f.a.shape == ()
        return compose(f, g)

    out = liftnn.associative_scan(liftnn.vmap(one), Step(X, X))
    np.testing.assert_allclose([out.a.value, out.b.value], loop(X, X), rtol=1e-5)


def test_sharing_cycles_and_static_values_stay():
    def fn(a, b):
        b.w.value = a.w + b.w
        return b

    elems = Holder(w=liftnn.Param(X), mode="train")
    elems.again, elems.me = [elems.w], elems
    out = liftnn.associative_scan(fn, elems)
    assert out.again[0] is out.w
    assert out.me is out
    assert out is not elems
    assert out.mode == "train"
    np.testing.assert_array_equal(out.w.value, np.cumsum(X))


def test_modules_stand_anywhere_in_a_tree_and_hold_array_leaves_and_trees():
    def fn(a, b):
        total = jax.tree.map(jnp.add, a["m"].v.value, b["m"].v.value)
        return {"m": Holder(v=liftnn.Variable(total), x=a["m"].x + b["m"].x), "y": a["y"] + b["y"]}

    elems = {"m": Holder(v=liftnn.Variable({"p": X, "q": None}), x=X), "y": X}
    out = liftnn.associative_scan(fn, elems)
    for x in (out["m"].v.value["p"], out["m"].x, out["y"]):
        np.testing.assert_array_equal(x, np.cumsum(X))


@pytest.mark.thorough
def test_gradients_go_through():
    def total(steps):
        return liftnn.associative_scan(compose, steps).b.value[-1]

    grads = liftnn.grad(total, wrt=...)(Step(X, X))
    expected = jax.grad(lambda a, b: jax.lax.associative_scan(
        lambda f, g: (g[0] * f[0], g[0] * f[1] + g[1]), (a, b)
    )[1][-1], argnums=(0, 1))(X, X)  # fmt: skip
    np.testing.assert_allclose([grads["a"].value, grads["b"].value], expected, rtol=1e-5)


class Scaled(liftnn.Module):
    """A combination with a parameter of its own."""

    def __init__(self):
        self.scale, self.rngs = liftnn.Param(jnp.array(2.0)), liftnn.Rngs(0)

    def __call__(self, a, b):
        return a + b * self.scale / 2.0

    def count(self, a, b):
        self.scale.value = self.scale + 1
        return a + b

    def draw(self, a, b):
        return a + b + jax.random.normal(self.rngs(), ())


WAYS = {
    "a method": lambda model, name: getattr(model, name),
    "a closure": lambda model, name: lambda a, b: getattr(model, name)(a, b),
    "a partial": lambda model, name: functools.partial(lambda model, a, b: getattr(model, name)(a, b), model),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("outer", [lambda f: f, liftnn.jit(static_argnums=1)], ids=["plain", "jit"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_other_modules_may_be_read_and_not_written(way, outer):
    model = Scaled()
    scan = outer(lambda model, name, x: liftnn.associative_scan(way(model, name), x))
    np.testing.assert_array_equal(scan(model, "__call__", X), np.cumsum(X))
    for name, path in (("count", "scale"), ("draw", r"rngs\.default\.count")):
        with pytest.raises(
            errors.SharedWriteError, match=rf"associative_scan changed \w+\.{path} \(an? \w+\)"
        ):
            scan(model, name, X)
    assert_same(model, Scaled())


def test_a_module_may_be_the_function():
    np.testing.assert_array_equal(liftnn.associative_scan(Scaled(), X), np.cumsum(X))


def test_gradients_of_a_captured_module_go_through():
    def total(model):
        return liftnn.associative_scan(lambda a, b: model(a, b), X)[-1]

    grads = liftnn.grad(total)(Scaled())
    plain = jax.grad(lambda s: jax.lax.associative_scan(lambda a, b: a + b * s / 2.0, X)[-1])(2.0)
    np.testing.assert_allclose(grads["scale"].value, plain, rtol=1e-6)


def test_another_structure_is_an_error_that_shows_the_difference():
    def fn(a, b):
        a.b.value = a.b + b.b
        a.mode = "eval"
        return a

    with raises(
        errors.StructureError,
        "The function given to associative_scan must return the structure of its arguments, but its output differs "
        "at:\n  mode: 'train' -> 'eval'\n"
        "Return the combination in the structure of `elems`.",
    ):
        liftnn.associative_scan(fn, Holder(b=liftnn.Param(X), mode="train"))


def test_an_exception_in_the_function_is_its_own():
    def fails(a, b):
        a.a.value = b.a.value
        raise KeyError("half way")

    steps = Step(X, X)
    with pytest.raises(KeyError, match="half way"):
        liftnn.associative_scan(fails, steps)
    assert_same(steps, Step(X, X))
