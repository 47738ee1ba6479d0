"""Loops and branches under `jax.disable_jit`: the oracle is the same call with jit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.user_modules import Holder

import liftnn


def cond(m, x):
    return liftnn.cond(x.sum() > 2, lambda m, x: m.k * x, lambda m, x: -m.w * x, m, x)


def switch(m, x):
    index = x.sum().astype(int)
    return liftnn.switch(index, [lambda m, x: m.k * x, lambda m, x: m.w + x, lambda m, x: -x], m, x)


def while_loop(m, x):
    return liftnn.while_loop(lambda s: s[1].sum() < 50, lambda s: (s[0], s[1] * s[0].w), (m, x + 1))[1]


def bounded_while_loop(m, x):
    start = (m, x + 1)
    return liftnn.while_loop(lambda s: s[1].sum() < 50, lambda s: (s[0], s[1] * s[0].w), start, max_steps=3)[
        1
    ]


def fori_loop(m, x):
    return liftnn.fori_loop(0, x.sum().astype(int), lambda i, s: (s[0], s[1] * s[0].w + i), (m, x))[1]


def counted(m, x):
    """A loop that becomes one of a mapped value in its first step, and that writes."""

    def body(state):
        m, y = state
        m.w.value = m.w + 1.0
        return m, y + x * m.w

    return liftnn.while_loop(lambda s: s[1].sum() < 50, body, (liftnn.clone(m), jnp.float32(0.0)))[1]


PROGRAMS = [cond, switch, while_loop, bounded_while_loop, fori_loop, counted]
WAYS = {
    "plain": lambda f, m, x: f(m, x[2]),
    "vmap": lambda f, m, x: liftnn.vmap(f, in_axes=(None, 0))(m, x),
    "remat": lambda f, m, x: liftnn.remat(f)(m, x[2]),
    "eval_shape": lambda f, m, x: liftnn.eval_shape(f, m, x[2]).shape,
    "jit of vmap": lambda f, m, x: liftnn.jit(liftnn.vmap(f, in_axes=(None, 0)))(m, x),
    "scan": lambda f, m, x: liftnn.scan(lambda m, x: (m, f(m, x)))(m, x)[1],
    "jax.vmap": lambda f, m, x: jax.vmap(lambda x: f(m, x))(x),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_a_loop_or_branch_does_as_with_jit(program, way):
    model = Holder(k=3.0, w=liftnn.Param(jnp.float32(2.0)))
    x = jnp.arange(1.0, 5.0)
    expected = WAYS[way](program, model, x)
    with jax.disable_jit():
        np.testing.assert_allclose(WAYS[way](program, model, x), expected)


@pytest.mark.parametrize("program", [cond, switch, while_loop], ids=lambda f: f.__name__)
def test_gradients_are_as_with_jit(program):
    model = Holder(k=3.0, w=liftnn.Param(jnp.float32(2.0)))
    if program is while_loop:
        with jax.disable_jit():  # a loop in plain Python has derivatives, as in JAX
            grads = liftnn.grad(program)(model, jnp.float32(1.0))
        assert grads["w"].value == 5 * 2.0**4 * 2.0
        return
    expected = liftnn.grad(program)(model, jnp.float32(1.0))
    with jax.disable_jit():
        assert liftnn.grad(program)(model, jnp.float32(1.0))["w"].value == expected["w"].value
