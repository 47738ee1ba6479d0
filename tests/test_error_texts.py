"""Errors that JAX raises while it traces a function of arrays are JAX's own, word by word, in every transform."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.array_programs import JAX, LIFTNN, MESH

X = jnp.arange(1.0, 5.0)


def choose(value, other=1.0):
    return value if value.sum() > 0 else other


def as_index(value):
    return np.arange(9.0)[value.sum().astype(int)] + value


def mask(value):
    return value[value > 1.0].sum()


def wrong_shape(value):
    return value @ jnp.ones((3, 3))


def leak(value):
    LEAKED.append(value * 2)
    return value * 2


def use_leaked(value):
    return value + LEAKED.pop()


LEAKED: list = []
FAULTS = [choose, as_index, mask, wrong_shape]


def ruled(of, f):
    made = of.custom_vjp(f)
    made.defvjp(lambda value: (f(value), None), lambda saved, g: (g,))
    return made


def pushed(of, f):
    made = of.custom_jvp(f)
    made.defjvp(lambda primals, tangents: (f(primals[0]), tangents[0]))
    return made


def mapped(of, f):
    return of.shard_map(f, mesh=MESH, in_specs=jax.P("x"), out_specs=jax.P("x"))


CALLS = {
    "jit": lambda of, f: of.jit(f)(X),
    "jit by keyword": lambda of, f: of.jit(f)(value=X),
    "jit of vmap": lambda of, f: of.jit(of.vmap(f))(X[None]),
    "jit of a lambda": lambda of, f: of.jit(lambda tree: f(tree["x"]))({"x": X}),
    "nested jit": lambda of, f: of.jit(lambda outer: of.jit(f)(outer))(X),
    "jit of grad": lambda of, f: of.jit(of.grad(lambda inner: f(inner).sum()))(X),
    "vmap of jit": lambda of, f: of.vmap(of.jit(f))(X[None]),
    "vmap": lambda of, f: of.vmap(f)(X[None]),
    "pmap": lambda of, f: of.pmap(f)(X[None]),
    "shard_map": lambda of, f: mapped(of, f)(X),
    "map": lambda of, f: of.map(f, X[None]),
    "scan": lambda of, f: of.scan(lambda c, x: (c + f(c), x))(X, X),
    "while_loop": lambda of, f: of.while_loop(lambda c: c[0] < 9, f, X),
    "condition of while_loop": lambda of, f: of.while_loop(lambda c: f(c).sum() < 9, lambda c: c + 1, X),
    "fori_loop": lambda of, f: of.fori_loop(0, 3, lambda i, c: f(c), X),
    "cond": lambda of, f: of.cond(X[0] > 0, f, lambda x: x, X),
    "switch": lambda of, f: of.switch(1, [lambda x: x, f, lambda x: -x], X),
    "remat": lambda of, f: of.remat(f)(X),
    "grad of remat": lambda of, f: of.grad(lambda inner: of.remat(f)(inner).sum())(X),
    "make_jaxpr": lambda of, f: of.make_jaxpr(f)(X),
    "eval_shape": lambda of, f: of.eval_shape(f, X),
    "checkify": lambda of, f: of.checkify(f)(X),
    "linearize": lambda of, f: of.linearize(lambda inner: f(inner), X),
    "custom_vjp": lambda of, f: of.jit(lambda outer: ruled(of, f)(outer))(X),
    "custom_jvp": lambda of, f: of.jit(lambda outer: pushed(of, f)(outer))(X),
    "lower": lambda of, f: of.jit(f).lower(X),
    "trace": lambda of, f: of.jit(f).trace(X),
}


def text_of(act):
    """The class and text of the error that a call raises, without the addresses in it."""
    jax.clear_caches()
    try:
        act()
    except Exception as error:
        text = re.sub(r"0x[0-9a-f]+|id=\d+|\bid \d+", "...", str(error))
        return type(error), text.partition("\n--------------------\n")[0]
    return None


@pytest.mark.thorough
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.sample(112)
def test_errors_of_the_traced_function_are_those_of_jax(fault, call):
    expected, actual = [text_of(lambda of=of: CALLS[call](of, fault)) for of in (JAX, LIFTNN)]
    assert expected is not None or call == "linearize"  # which has concrete values
    assert actual == expected


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.sample(6)
def test_a_leaked_tracer_is_described_as_by_jax(call):
    LEAKED.clear()

    def use(of):
        text_of(lambda: CALLS[call](of, leak))
        return text_of(lambda: use_leaked(X))

    expected, actual = [use(of) for of in (JAX, LIFTNN)]
    assert actual == expected


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.sample(32)
def test_nans_are_reported_as_by_jax(call):
    with jax.debug_nans(True):
        expected, actual = [
            text_of(lambda of=of: CALLS[call](of, lambda x: jnp.log(x - 9))) for of in (JAX, LIFTNN)
        ]
    assert actual == expected


RESULTS = {
    "grad of no scalar": lambda of: of.grad(lambda x: x)(X),
    "value_and_grad of no scalar": lambda of: of.value_and_grad(lambda x: x)(X),
    "a carry of another shape": lambda of: of.scan(lambda c, x: (X, x))(0.0, X),
    "a carry of another dtype": lambda of: of.scan(lambda c, x: (c.astype(int), x))(0.0, X),
    "a state of another type": lambda of: of.while_loop(lambda c: c < 3, lambda c: (c, c), 1.0),
    "a condition that is no bool": lambda of: of.while_loop(lambda c: c, lambda c: c, 1.0),
    "a fori_loop of another shape": lambda of: of.fori_loop(0, 3, lambda i, c: X, 1.0),
    "branches of other types": lambda of: of.cond(X[0] > 0, lambda x: x, lambda x: x[0], X),
    "branches of other trees": lambda of: of.switch(1, [lambda x: x, lambda x: (x, x)], X),
    "an unknown axis name": lambda of: of.vmap(lambda x: jax.lax.psum(x, "rows"))(X),
    "out_axes of another tree": lambda of: of.vmap(lambda x: x, out_axes=(0, 1))(X),
    "a mapped output without an axis": lambda of: of.vmap(lambda x: x, out_axes=None)(X),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", RESULTS)
def test_errors_about_results_are_those_of_jax(name):
    expected, actual = [text_of(lambda of=of: RESULTS[name](of)) for of in (JAX, LIFTNN)]
    assert actual == expected


REFUSED = {
    "sizes of mapped axes": lambda of: of.vmap(lambda x, y: x)(jnp.ones(2), jnp.ones(3)),
    "in_axes of another tree": lambda of: of.vmap(lambda x: x, in_axes=(0, 0))(X),
    "an axis that is not there": lambda of: of.vmap(lambda x: x, in_axes=1)(X),
    "grad of an int": lambda of: of.grad(lambda x: x)(1),
    "a string": lambda of: of.jit(lambda x: x)("text"),
    "a static argument that is not hashable": lambda of: of.jit(lambda x, y: x, static_argnums=1)(X, []),
    "elements of other sizes": lambda of: of.scan(lambda c, x: (c, x))(0.0, (X, X[:2])),
}
"""Calls that JAX rejects before it runs the function; liftnn names the path of the argument."""


@pytest.mark.parametrize("name", REFUSED)
def test_errors_about_arguments_are_of_the_class_that_jax_raises(name):
    (expected, _), (actual, _) = [text_of(lambda of=of: REFUSED[name](of)) for of in (JAX, LIFTNN)]
    assert issubclass(actual, expected)
