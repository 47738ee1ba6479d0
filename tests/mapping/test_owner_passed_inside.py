"""Inside a map over a part of a module, transforms take the module and its methods: its other parts can be used."""

from __future__ import annotations

import functools
import gc
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.mapping import test_captured_owner as captured
from tests.mapping.test_captured_owner import Net, X, as_list, looped, mapped, plain, scanned

import liftnn
from liftnn import errors


def helper(net, x):
    return net.gain * net.act(x) * net.scale


def other(net, x):
    return net.scale * x


def write(net, x):
    net.calls += 1
    return net.gain * x


def more(net, c):
    return c[0] < 3


def step(net, c):
    return c[0] + 1, net.gain * c[1]


def of_index(net, i, x):
    return net.gain * x


def loss(net, x):
    return (net.gain * x**2).sum()


@liftnn.jit
def jitted(net, x):
    return net.gain * x


class Identity(liftnn.Module):
    def __call__(self, x):
        return x


class Pair(liftnn.Module):
    def __init__(self, *parts):
        self.parts = parts


class Holder:
    """Methods of a net, as a plain class would have them."""

    def __init__(self, net):
        for f in (helper, other, write, more, step, of_index, loss, jitted):
            setattr(self, f.__name__, types.MethodType(f, net))


def rows(f, x):
    return jnp.stack([f(row) for row in x])


INSIDE = {
    "cond": (
        lambda net, m, x: liftnn.cond(x.sum() > 0, m.helper, m.other, x),
        lambda net, m, x: m.helper(x) if x.sum() > 0 else m.other(x),
    ),
    "cond of operands": (
        lambda net, m, x: liftnn.cond(x.sum() > 0, helper, other, net, x),
        lambda net, m, x: m.helper(x) if x.sum() > 0 else m.other(x),
    ),
    "cond of partials": (
        lambda net, m, x: liftnn.cond(x.sum() > 0, functools.partial(helper, net), m.other, x),
        lambda net, m, x: m.helper(x) if x.sum() > 0 else m.other(x),
    ),
    "switch": (
        lambda net, m, x: liftnn.switch(jnp.int32(1), [m.helper, m.other], x),
        lambda net, m, x: m.other(x),
    ),
    "while_loop": (
        lambda net, m, x: liftnn.while_loop(m.more, m.step, (jnp.int32(0), x))[1],
        lambda net, m, x: m.step(m.step(m.step((0, x))))[1],
    ),
    "fori_loop": (
        lambda net, m, x: liftnn.fori_loop(0, 3, m.of_index, x),
        lambda net, m, x: m.of_index(2, m.of_index(1, m.of_index(0, x))),
    ),
    "map": (lambda net, m, x: liftnn.map(m.helper, x), lambda net, m, x: rows(m.helper, x)),
    "vmap": (lambda net, m, x: liftnn.vmap(m.helper)(x), lambda net, m, x: rows(m.helper, x)),
    "vmap with None": (
        lambda net, m, x: liftnn.vmap(helper, in_axes=(None, 0))(net, x),
        lambda net, m, x: rows(m.helper, x),
    ),
    "vmap of vmap": (
        lambda net, m, x: liftnn.vmap(liftnn.vmap(m.helper))(x),
        lambda net, m, x: m.helper(x),
    ),
    "scan": (
        lambda net, m, x: liftnn.scan(lambda c, _: (m.helper(c), None), length=2)(x, None)[0],
        lambda net, m, x: m.helper(m.helper(x)),
    ),
    "scan of a method": (
        lambda net, m, x: liftnn.scan(
            liftnn.remat(types.MethodType(lambda net, c, _: (helper(net, c), None), net)), length=2
        )(x, None)[0],
        lambda net, m, x: m.helper(m.helper(x)),
    ),
    "jit": (lambda net, m, x: liftnn.jit(m.helper)(x), lambda net, m, x: m.helper(x)),
    "jit of a module": (lambda net, m, x: liftnn.jit(net)(Identity(), x), lambda net, m, x: net.helper(x)),
    "decorated method": (lambda net, m, x: m.jitted(x), lambda net, m, x: m.jitted(x)),
    "by position": (lambda net, m, x: liftnn.jit(helper)(net, x), lambda net, m, x: m.helper(x)),
    "by keyword": (lambda net, m, x: liftnn.jit(helper)(x=x, net=net), lambda net, m, x: m.helper(x)),
    "in a dict": (
        lambda net, m, x: liftnn.jit(lambda d, x: helper(d["net"], x))({"net": net}, x),
        lambda net, m, x: m.helper(x),
    ),
    "twice": (
        lambda net, m, x: liftnn.jit(lambda a, b, x: helper(a, other(b, x)))(net, net, x),
        lambda net, m, x: m.helper(m.other(x)),
    ),
    "partial": (
        lambda net, m, x: liftnn.jit(functools.partial(helper, net))(x),
        lambda net, m, x: m.helper(x),
    ),
    "static argument": (
        lambda net, m, x: liftnn.jit(lambda net, n, x: n * helper(net, x), static_argnums=1)(net, 2, x),
        lambda net, m, x: 2 * m.helper(x),
    ),
    "remat": (lambda net, m, x: liftnn.remat(m.helper)(x), lambda net, m, x: m.helper(x)),
    "remat of arguments": (
        lambda net, m, x: liftnn.remat(helper)(net, x),
        lambda net, m, x: m.helper(x),
    ),
    "three levels": (
        lambda net, m, x: liftnn.jit(liftnn.remat(lambda n, x: liftnn.cond(x.sum() > 0, helper, other, n, x)))(net, x),
        lambda net, m, x: m.helper(x),
    ),
    "checkify": (lambda net, m, x: liftnn.checkify(m.helper)(x)[1], lambda net, m, x: m.helper(x)),
    "eval_shape": (
        lambda net, m, x: x + jnp.zeros(liftnn.eval_shape(m.helper, x).shape),
        lambda net, m, x: x,
    ),
    "gradient by the input": (
        lambda net, m, x: liftnn.grad(m.loss, argnums=1)(x),
        lambda net, m, x: 2 * net.gain * x,
    ),
    "write in jit": (lambda net, m, x: liftnn.jit(m.write)(x), lambda net, m, x: m.write(x)),
    "write in remat": (lambda net, m, x: liftnn.remat(write)(net, x), lambda net, m, x: m.write(x)),
    "write in cond": (
        lambda net, m, x: liftnn.cond(x.sum() > 0, m.write, m.other, x),
        lambda net, m, x: m.write(x) if x.sum() > 0 else m.other(x),
    ),
}  # fmt: skip
"""What is done inside, and the same in plain Python: with the net, its methods, and an array."""


def body_of(inside):
    """The body of a map, which calls the block first."""
    return lambda net, b, x: inside(net, Holder(net), b(x))


@pytest.mark.parametrize("outer", captured.OUTER)
@pytest.mark.parametrize("over", [scanned, mapped, looped])
@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.sample(4)
def test_the_other_parts_are_read_and_written(over, inside, outer):
    if over is mapped and inside.startswith("write"):
        pytest.skip("batch elements cannot write what they share")
    if outer == "remat" and inside not in ("jit", "remat", "cond", "vmap"):
        pytest.skip("some of them are enough")
    ours, theirs = map(body_of, INSIDE[inside])
    net, reference = Net(), as_list(Net())
    for _ in range(2):
        out = captured.OUTER[outer](lambda net: over(net, ours, X))(net)
        np.testing.assert_allclose(out, plain(reference, theirs, X, over), rtol=2e-5)
        np.testing.assert_allclose(net.blocks.mean.value, [b.mean.value for b in reference.blocks], rtol=1e-5)
        assert int(net.calls) == int(reference.calls)


@pytest.mark.parametrize("over", [scanned, looped])
@pytest.mark.parametrize("inside", ["cond", "cond of partials", "switch", "while_loop", "fori_loop"])
def test_no_tracer_of_a_loop_or_branch_stays(over, inside):
    net = Net()
    with jax.checking_leaks():
        over(net, body_of(INSIDE[inside][0]), X)


@pytest.mark.parametrize("bound", [types.MethodType, lambda f, net: lambda x: f(net, x), functools.partial])
def test_each_branch_is_traced_once(bound):
    traces = []

    def counted(net, x):
        traces.append(x)
        return net.gain * x

    def branched(net, b, x):
        return liftnn.cond(x.sum() > 0, bound(counted, net), lambda x: x, b(x))

    scanned(Net(), branched, X)
    assert len(traces) == 1


WRONG = {
    "the mapped part": lambda net, x: liftnn.jit(lambda net, x: net.blocks.w.sum() * x)(net, x),
    "the mapped part as argument": lambda net, x: liftnn.jit(lambda b, x: b.w.sum() * x)(net.blocks, x),
    "its Variable as argument": lambda net, x: liftnn.jit(lambda w, x: w.sum() * x)(net.blocks.w, x),
    "through a method": lambda net, x: liftnn.remat(lambda x: x * net.blocks.w.sum())(x),
    "returned": lambda net, x: liftnn.jit(lambda net, x: (net, x))(net, x)[1],
    "cloned": lambda net, x: liftnn.jit(lambda net, x: (liftnn.clone(net), x)[1])(net, x),
    "an axis": lambda net, x: liftnn.vmap(lambda net: net.gain * 1.0)(net) * x,
    "an axis of map": lambda net, x: liftnn.map(lambda net: net.gain * 1.0, net) * x,
    "a filter of axes": lambda net, x: liftnn.vmap(
        lambda net, x: net.gain * x, in_axes=(liftnn.StateAxes({...: 0}), 0)
    )(net, x),
    "a carry": lambda net, x: liftnn.scan(lambda c, _: (c, None), length=2)((net, x), None)[0][1],
    "a carry of a loop": lambda net, x: liftnn.fori_loop(0, 2, lambda i, c: (c[0], c[1] * c[0].gain), (net, x))[1],
    "a gradient": lambda net, x: liftnn.grad(loss)(net, x)["gain"] * x,
    "a tangent": lambda net, x: liftnn.jvp(types.MethodType(helper, net), (x,), (x,))[1],
    "a custom rule": lambda net, x: liftnn.custom_vjp(helper)(net, x),
    "in another module": lambda net, x: liftnn.jit(lambda pair, x: helper(pair.parts[0], x))(Pair(net), x),
}  # fmt: skip


@pytest.mark.parametrize("over", [scanned, mapped, looped])
@pytest.mark.parametrize("wrong", WRONG)
def test_other_uses_are_an_error_and_change_nothing(over, wrong):
    net = Net()
    before = jax.tree.map(np.asarray, liftnn.state(net).to_pure_dict())
    with pytest.raises(errors.AliasingError, match=r"was used, but it is also|enclosing map"):
        over(net, lambda net, b, x: WRONG[wrong](net, b(x)), X)
    jax.tree.map(np.testing.assert_array_equal, before, liftnn.state(net).to_pure_dict())
    assert jax.tree.all(jax.tree.map(lambda x: not isinstance(x, jax.core.Tracer), liftnn.state(net)))
    expected = plain(as_list(net), captured.read, X, over)
    np.testing.assert_allclose(over(net, captured.read, X), expected, rtol=1e-5)


def test_a_change_of_structure_is_an_error():
    net = Net()
    with pytest.raises(errors.TraceContextError, match="Cannot change the attribute 'seen'"):
        mapped(
            net, lambda net, b, x: liftnn.jit(lambda net, x: (setattr(net, "seen", 1), x)[1])(net, b(x)), X
        )
    assert not hasattr(net, "seen")


def test_gradients_reach_all_parts():
    def of_net(net):
        return scanned(net, lambda net, b, x: liftnn.remat(helper)(net, b(x)), X / 50).sum()

    def by_hand(w, gain):
        x = X / 50
        for i in range(captured.N):
            x = gain * jnp.tanh(x * w[i]) * 2.0
        return x.sum()

    net = Net()
    grads = liftnn.grad(of_net)(net)
    of_w, of_gain = jax.grad(by_hand, argnums=(0, 1))(net.blocks.w.value, net.gain.value)
    np.testing.assert_allclose(grads["inside"]["blocks"]["w"].value, of_w, rtol=1e-5)
    np.testing.assert_allclose(grads["gain"].value, of_gain, rtol=1e-5)


def test_a_kept_function_forgets_the_net():
    net = Net()
    scanned(net, lambda net, b, x: jitted(net, b(x)), X)
    seen = weakref.ref(net)
    del net
    gc.collect()
    assert seen() is None
