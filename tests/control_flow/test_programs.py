"""The programs of loops and branches with modules: the operations of hand-written JAX, in the same order."""

import jax
import jax.numpy as jnp
import pytest
from tests.user_modules import Holder

import liftnn

X = jnp.arange(3.0) + 1
XS = jnp.ones((4, 3))


def step(w, x):
    return jnp.tanh(w * x) * w


def by_scan(w, x):
    return jax.lax.scan(lambda c, y: (step(w, c) + y, c), x, XS)


def scan(m, x):
    def body(m, c, y):
        return step(m.w, c) + y, c

    return liftnn.scan(body, in_axes=(None, liftnn.Carry, 0), out_axes=(liftnn.Carry, 0))(m, x, XS)


def captured_scan(m, x):
    return liftnn.scan(lambda c, y: (step(m.w, c) + y, c))(x, XS)


LOOPS = {
    "scan": (scan, by_scan),
    "captured": (captured_scan, by_scan),
    "map": (
        lambda m, x: liftnn.map(lambda y: step(m.w, y), XS),
        lambda w, x: jax.lax.map(lambda y: step(w, y), XS),
    ),
    "fori_loop": (
        lambda m, x: liftnn.fori_loop(0, 3, lambda i, c: (c[0], step(c[0].w, c[1])), (m, x))[1],
        lambda w, x: jax.lax.fori_loop(0, 3, lambda i, c: step(w, c), x),
    ),
    "cond": (
        lambda m, x: liftnn.cond(x[0] > 0, lambda m, x: step(m.w, x), lambda m, x: m.w + x, m, x),
        lambda w, x: jax.lax.cond(x[0] > 0, step, lambda w, x: w + x, w, x),
    ),
    "switch": (
        lambda m, x: liftnn.switch(1, [lambda m, x: step(m.w, x), lambda m, x: m.w + x], m, x),
        lambda w, x: jax.lax.switch(1, [step, lambda w, x: w + x], w, x),
    ),
}


def operations(jaxpr):
    """The primitives of a jaxpr, with those of the functions in their parameters."""
    found = []
    for equation in jaxpr.eqns:
        inner = [
            getattr(p, "jaxpr", p)
            for value in equation.params.values()
            for p in (value if isinstance(value, (tuple, list)) else [value])
            if hasattr(p, "eqns") or hasattr(p, "jaxpr")
        ]
        found.append((str(equation.primitive), [operations(j) for j in inner]))
    return found


def total(out):
    return sum(jnp.sum(x) for x in jax.tree.leaves(out))


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_has_the_operations_of_hand_written_jax(name):
    ours, theirs = LOOPS[name]
    w = jnp.float32(0.5)

    def pure(w, x):
        return ours(Holder(w=liftnn.Param(w)), x)

    assert operations(jax.make_jaxpr(pure)(w, X).jaxpr) == operations(jax.make_jaxpr(theirs)(w, X).jaxpr)


@pytest.mark.parametrize("name", [x for x in LOOPS if x != "fori_loop"])
def test_its_gradient_adds_in_the_same_order(name):
    ours, theirs = LOOPS[name]
    w = jnp.float32(0.3)
    expected = jax.jit(jax.grad(lambda w, x: total(theirs(w, x)), (0, 1)))(w, X)
    actual = jax.jit(jax.grad(lambda w, x: total(ours(Holder(w=liftnn.Param(w)), x)), (0, 1)))(w, X)
    assert [x.tolist() for x in actual] == [x.tolist() for x in expected]
