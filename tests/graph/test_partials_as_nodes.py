"""The attributes of a partial that a module holds are a part of it, as those of a function are."""

from __future__ import annotations

import copy
import functools

import jax.numpy as jnp
import pytest

import liftnn


def scale(model, x):
    """Scale."""
    return model.w * x


class Net(liftnn.Module):
    def __init__(self):
        self.w = liftnn.Param(jnp.asarray(2.0))
        self.act = functools.update_wrapper(functools.partial(scale, self), scale)
        self.act.gain = 3.0

    def __call__(self, x):
        return self.act(x) * self.act.gain


def in_jit(net):
    return liftnn.jit(lambda net, x: net(x))(net, 1.0), net


def written_in_jit(net):
    liftnn.jit(lambda net: setattr(net.act, "gain", 7.0))(net)
    return net(1.0), net


def made_in_jit(net):
    @liftnn.jit
    def replace(net):
        net.act = functools.partial(scale, net)
        net.act.gain = 11.0

    replace(net)
    return net(1.0), net


def array_in_jit(net):
    @liftnn.jit
    def step(net):
        net.act.gain = net.act.gain + jnp.ones(())
        return net(1.0)

    return step(net), net


def changed_outside(net):
    f = liftnn.jit(lambda net, x: net(x))
    first = f(net, 1.0), f(net, 1.0)
    net.act.gain = 5.0
    return (*first, f(net, 1.0), net)


def plain(program, monkeypatch):
    monkeypatch.setattr(liftnn, "jit", lambda f: f)
    return program(Net())


@pytest.mark.parametrize("program", [in_jit, written_in_jit, made_in_jit, array_in_jit, changed_outside])
def test_attributes_of_a_partial_are_what_they_are_in_plain_python(program, monkeypatch):
    *found, net = program(Net())
    *expected, oracle = plain(program, monkeypatch)
    assert list(map(float, found)) == list(map(float, expected))
    assert float(net.act.gain) == float(oracle.act.gain)


@pytest.mark.parametrize("copied", [liftnn.clone, copy.deepcopy])
def test_a_copy_has_the_attributes(copied):
    net = Net()
    other = copied(net)
    assert other.act.__name__ == "scale"
    assert other.act.__doc__ == "Scale."
    other.act.gain = 4.0
    assert (net.act.gain, other.act.gain) == (3.0, 4.0)
    other.w.value = jnp.asarray(5.0)
    assert (float(net(1.0)), float(other(1.0))) == (6.0, 20.0)


def test_a_first_attribute_in_a_transform_is_an_error():
    net = Net()
    net.act = functools.partial(scale, net)
    with pytest.raises(liftnn.StructureError, match="act: A partial was changed in place"):
        liftnn.jit(lambda net: setattr(net.act, "gain", 7.0))(net)
    assert not vars(net.act)


def test_the_function_and_an_argument_of_the_name_func_have_paths_of_their_own():
    net = liftnn.Module()
    net.act = functools.partial(Net(), func=Net())
    net.act.keywords["func"].w.value = jnp.asarray(5.0)
    state, graphdef = liftnn.split(net)
    merged = liftnn.merge(graphdef, state)
    assert (float(merged.act.func.w), float(merged.act.keywords["func"].w)) == (2.0, 5.0)
