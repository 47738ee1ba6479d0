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


def fails_in_its_second_call(m, x=1.0):
    m.calls.value = m.calls + 1
    m.k = 2 * m.k
    if m.calls > 1:
        raise RuntimeError("the second call")
    return x


def in_a_branch(m):
    return fails_in_its_second_call(m) + fails_in_its_second_call(m)


RAISING = {
    "cond": lambda m: liftnn.cond(True, in_a_branch, lambda m: 0.0, m),
    "switch": lambda m: liftnn.switch(1, [lambda m: 0.0, in_a_branch], m),
    "while_loop": lambda m: liftnn.while_loop(
        lambda m: True, lambda m: (fails_in_its_second_call(m), m)[1], m
    ),
    "fori_loop": lambda m: liftnn.fori_loop(0, 3, lambda i, m: (fails_in_its_second_call(m), m)[1], m),
}


@pytest.mark.parametrize("call", RAISING.values(), ids=RAISING)
def test_nothing_has_changed_if_a_later_step_raises(call):
    model = Holder(k=3.0, calls=liftnn.Variable(0))
    with jax.disable_jit(), pytest.raises(RuntimeError, match="the second call"):
        call(model)
    assert (model.k, int(model.calls)) == (3.0, 0)


def test_a_later_step_may_change_structure_as_in_plain_python():
    model = Holder(seen=[], k=0)

    def step(i, model):
        model.k = i
        model.seen.append(liftnn.Variable(jnp.float32(i)))
        return model

    with jax.disable_jit():
        assert liftnn.fori_loop(0, 3, step, model) is model
        assert liftnn.while_loop(lambda m: m.k < 5, lambda m: step(m.k + 1, m), model) is model
        assert liftnn.cond(True, lambda m: step(9, m), lambda m: m, model) is model
    assert [int(x.value) for x in model.seen] == [0, 1, 2, 3, 4, 5, 9]
    assert model.k == 9


def test_an_operand_may_be_captured_too_and_functions_may_be_methods():
    model = Holder(w=liftnn.Variable(jnp.float32(1.0)), layer=liftnn.Linear(2, 2, rngs=liftnn.Rngs(0)))

    def double(*_):
        model.w.value = 2 * model.w

    with jax.disable_jit():
        liftnn.cond(True, double, lambda m: None, model)
        liftnn.fori_loop(0, 2, double, None)
        out = liftnn.switch(0, [model.layer, model.layer.__call__], jnp.ones(2))
    assert float(model.w) == 8.0
    assert out.tolist() == model.layer(jnp.ones(2)).tolist()
