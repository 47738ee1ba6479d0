"""Loops and branches under `jax.disable_jit`: the oracle is the same call with jit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.user_modules import Holder

import liftnn
from liftnn import errors


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


def count_and_fail(m, x):
    m.calls.value = m.calls + 1
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
    "scan": lambda m: liftnn.scan(lambda m, x: (m, count_and_fail(m, x)))(m, jnp.arange(3.0)),
    "map": lambda m: liftnn.map(lambda x: count_and_fail(m, x), jnp.arange(3.0)),
    "repeat": lambda m: liftnn.repeat(count_and_fail, 3)(m, jnp.arange(3.0)),
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


class Switched(liftnn.Module):
    """Its steps write other Variables each time."""

    def __init__(self):
        self.on = liftnn.Variable(jnp.array(0))
        self.total = liftnn.Variable(jnp.float32(0.0))
        self.factor = liftnn.Variable(jnp.float32(1.0))
        self.state = liftnn.Variable(jnp.zeros(2))

    def __call__(self, x):
        self.on.value = 1 - self.on
        y = liftnn.cond(self.on == 1, Switched.add, lambda self, x: x, self, x)
        return y + liftnn.switch(self.on.value, [type(self).store, Switched.renew], self, y)

    def add(self, x):
        self.total.value = self.total + x
        return self.total.value

    def store(self, x):
        self.factor.value = 2 * self.factor
        return x

    def renew(self, x):
        self.state.value = self.state + x
        return self.factor * self.state.sum()


class WithArrayLeaf(Switched):
    """It also writes an array leaf in every other step."""

    def __init__(self):
        super().__init__()
        self.array = jnp.float32(1.0)

    def store(self, x):
        self.array = 2 * self.array
        return super().store(x)


def stacked():
    return liftnn.vmap(lambda i: Switched(), in_axes=0, axis_size=4)(jnp.arange(4))


def started(model, on):
    model.on.value = on
    return model


XS = jnp.arange(1.0, 5.0)
PARTS = liftnn.StateAxes({liftnn.PathContains("on"): None, ...: 0})
LOOPS = {
    "scan": (Switched, lambda m: liftnn.scan(Switched.__call__, in_axes=(None, 0), out_axes=0)(m, XS)),
    "backwards": (
        Switched,
        lambda m: liftnn.scan(Switched.__call__, in_axes=(None, 0), out_axes=0, reverse=True)(m, XS),
    ),
    "two steps": (
        Switched,
        lambda m: liftnn.scan(Switched.__call__, in_axes=(None, 0), out_axes=0)(m, XS[:2]),
    ),
    "one step": (
        Switched,
        lambda m: liftnn.scan(Switched.__call__, in_axes=(None, 0), out_axes=0)(m, XS[:1]),
    ),
    "an array leaf": (
        WithArrayLeaf,
        lambda m: liftnn.scan(Switched.__call__, in_axes=(None, 0), out_axes=0)(m, XS),
    ),
    "an array leaf in the carry": (WithArrayLeaf, lambda m: liftnn.scan(lambda m, x: (m, m(x)))(m, XS)[1]),
    "carry": (Switched, lambda m: liftnn.scan(lambda m, x: (m, m(x)))(m, XS)[1]),
    "slices": (stacked, lambda m: liftnn.scan(Switched.__call__, in_axes=0, out_axes=0)(m, XS)),
    "slices with a common part": (
        stacked,
        lambda m: liftnn.scan(Switched.__call__, in_axes=(PARTS, 0), out_axes=0)(
            started(m, jnp.array(0)), XS
        ),
    ),
    "captured": (Switched, lambda m: liftnn.scan(lambda _, x: (None, m(x)))(None, XS)[1]),
    "map of a captured module": (
        Switched,
        lambda m: liftnn.map(lambda x: jnp.stack([m(x), m.total.value]), XS),
    ),
    "map of slices": (stacked, lambda m: liftnn.map(lambda s: s[0](s[1]), (m, XS))),
    "repeat": (Switched, lambda m: liftnn.repeat(Switched.__call__, 4)(m, XS)),
    "in a vmap": (
        stacked,
        lambda m: liftnn.vmap(lambda m, x: liftnn.scan(m, in_axes=0, out_axes=0)(XS + x))(m, XS),
    ),
    "gradients": (
        Switched,
        lambda m: liftnn.grad(lambda x: liftnn.scan(m, in_axes=0, out_axes=0)(XS * x).sum())(2.0),
    ),
}


@pytest.mark.filterwarnings("ignore::liftnn.AttributeWarning")
@pytest.mark.parametrize("name", LOOPS)
def test_steps_may_write_what_other_steps_do_not(name):
    make, loop = LOOPS[name]
    expected, model = make(), make()
    result = loop(expected)
    with jax.disable_jit():
        np.testing.assert_allclose(loop(model), result, rtol=1e-6)
    for x, y in zip(*[jax.tree.leaves(liftnn.split(m)[0]) for m in (model, expected)], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)
        assert jax.typeof(x) == jax.typeof(y)


OF_VALUES = {
    "scan": lambda f, m: liftnn.scan(lambda m, x: (m, f(m, x)))(m, XS)[1],
    "scan of slices": lambda f, m: liftnn.scan(lambda _, x: (0, f(m, x)))(0, XS)[1],
    "map": lambda f, m: liftnn.map(lambda x: f(m, x), XS),
    "repeat": lambda f, m: liftnn.repeat(f, 4)(m, XS),
}


@pytest.mark.parametrize("loop", OF_VALUES.values(), ids=OF_VALUES)
def test_each_step_runs_once_and_sees_values(loop):
    model, seen = Holder(total=liftnn.Variable(jnp.float32(0.0))), []

    def step(model, x):
        if x > 2:  # an error for a tracer
            model.total.value = model.total + x
        seen.append((float(x), float(model.total)))
        return x

    with jax.disable_jit():
        assert loop(step, model).tolist() == XS.tolist()
    assert seen == [(1.0, 0.0), (2.0, 0.0), (3.0, 3.0), (4.0, 7.0)]
    assert float(model.total) == 7.0


def test_a_number_is_promoted_as_with_jit():
    model = Holder(w=liftnn.Variable(0))

    def step(model, x):
        model.w.value = model.w + x
        return model, model.w.value

    expected = liftnn.scan(step)(Holder(w=liftnn.Variable(0)), XS)[1]
    with jax.disable_jit():
        ys = liftnn.scan(step)(model, XS)[1]
    assert ys.tolist() == expected.tolist()
    assert jax.typeof(model.w.value) == jax.typeof(expected[0])


@pytest.mark.parametrize("name", ["scan", "scan of slices", "map"])
def test_steps_whose_outputs_differ_are_named(name):
    def step(model, x):
        return jnp.ones(2 if x > 2 else 3)

    with jax.disable_jit(), pytest.raises(errors.StructureError) as caught:
        OF_VALUES[name](step, Holder(w=liftnn.Variable(0.0)))
    assert f"step 0 and step 2 of liftnn.{name.split()[0]} produce different shapes" in str(caught.value)
    assert "float32[3] -> float32[2]" in str(caught.value)
    assert str(caught.value).endswith("Make the same changes in all steps, or make them after the loop.")
