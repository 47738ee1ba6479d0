"""A rule that is defined for a function of one call is there when JAX runs it, after the call."""

from __future__ import annotations

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.user_modules import Affine

import liftnn

X = jnp.array([0.5, 1.0, 2.0])
ROWS = jnp.stack([X, 2 * X])


def by_vjp(library, f, scale):
    """Define the function and its rule anew, as a function that returns its result does."""
    local = library.custom_vjp(f)
    local.defvjp(lambda *args: (f(*args), args), lambda args, ct: (*[None] * (len(args) - 1), scale * ct))
    return local


def by_jvp(library, f, scale):
    local = library.custom_jvp(f)
    local.defjvp(lambda args, tangents: (f(*args), scale * tangents[-1]))
    return local


def by_optimized_vjp(library, f, scale):
    local = library.custom_vjp(lambda *args: f(*args))
    rule = (lambda *args: (f(*args), args), lambda args, ct: (*[None] * (len(args) - 1), scale * ct))
    local.defvjp(*rule, optimize_remat=True)
    return local


DEFINE = [by_vjp, by_optimized_vjp, by_jvp]


def scanned(library, f, x):
    def step(total, row):
        return total + f(row * x), None

    if library is jax:
        return jax.lax.scan(step, 0.0, ROWS)[0]
    return liftnn.scan(step)(0.0, ROWS)[0]


def of_lax(library):
    """Return where a library has its loops and branches."""
    return jax.lax if library is jax else library


def collected(x):
    gc.collect()
    return x


REACHES = {
    "grad": lambda lib, f: lib.grad(f)(X),
    "grad of jit": lambda lib, f: lib.grad(lib.jit(f))(X),
    "jit of grad": lambda lib, f: lib.jit(lib.grad(f))(X),
    "grad of checkpoint": lambda lib, f: lib.grad(lib.checkpoint(f))(X),
    "grad of vmap": lambda lib, f: lib.grad(lambda x: lib.vmap(f)(x * ROWS).sum())(X),
    "vmap of grad": lambda lib, f: lib.vmap(lib.grad(f))(ROWS),
    "vjp": lambda lib, f: collected(lib.vjp(f, X)[1])(1.0),
    "vjp of jit": lambda lib, f: collected(lib.vjp(lib.jit(f), X)[1])(1.0),
    "jacrev": lambda lib, f: lib.jacrev(lib.jit(f))(X),
    "scan": lambda lib, f: lib.grad(lambda x: scanned(lib, f, x))(X),
    "fori_loop": lambda lib, f: lib.grad(lambda x: of_lax(lib).fori_loop(0, 2, lambda _, c: c + f(x), 0.0))(
        X
    ),
    "cond": lambda lib, f: lib.grad(lambda x: of_lax(lib).cond(x.sum() > 0, f, jnp.sum, x))(X),
    "jax.lax.map": lambda lib, f: lib.grad(lambda x: jax.lax.map(lambda row: f(row * x), ROWS).sum())(X),
    "jax.jit": lambda lib, f: lib.grad(jax.jit(f))(X),
}


@pytest.mark.parametrize("name", REACHES)
@pytest.mark.parametrize("define", DEFINE)
def test_a_rule_of_a_function_of_arrays_outlives_the_call(define, name):
    def found(library):
        return REACHES[name](library, lambda x: define(library, jnp.sin, 3.0)(x).sum())

    np.testing.assert_allclose(found(liftnn), found(jax), rtol=1e-6)


@pytest.mark.parametrize("name", REACHES)
@pytest.mark.parametrize("define", DEFINE)
def test_a_rule_of_a_function_of_a_module_outlives_the_call(define, name):
    model = Affine(2.0)

    def plain(x):
        return define(jax, jnp.sin, 3.0)(x).sum()

    def of_model(x):
        return define(liftnn, lambda model, x: jnp.sin(x) + 0 * model.w, 3.0)(model, x).sum()

    np.testing.assert_allclose(REACHES[name](liftnn, of_model), REACHES[name](jax, plain), rtol=1e-6)


def test_the_rules_of_a_method_outlive_its_object():
    class Rules:
        def forward(self, x):
            return jnp.sin(x), x

        def backward(self, x, ct):
            return (3.0 * ct * x,)

    def local(library, x):
        f, rules = library.custom_vjp(jnp.sin), Rules()
        f.defvjp(rules.forward, rules.backward)
        return f(x).sum()

    found = liftnn.grad(lambda x: local(liftnn, x))(X)
    np.testing.assert_allclose(found, jax.grad(lambda x: local(jax, x))(X), rtol=1e-6)
