"""A `functools.cached_property` that is first read under a transform gives what it gives in plain Python, each time."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.raising import raises
from tests.same import assert_same, has_tracer


class Derived:
    """Cached properties: a number and an array."""

    @functools.cached_property
    def twice(self):
        return 2 * self.k

    @functools.cached_property
    def scaled(self):
        return self.array * self.k


@dataclasses.dataclass(frozen=True)
class Frozen(Derived):
    k: float = 3.0
    array: object = dataclasses.field(default_factory=lambda: jnp.arange(2.0))


@dataclasses.dataclass(frozen=True)
class Config(Derived):
    """All fields are static, as those of the settings of a model."""

    k: float = 3.0
    array = jnp.arange(2.0)


@dataclasses.dataclass
class Record(Derived):
    k: float = 3.0
    array: object = dataclasses.field(default_factory=lambda: jnp.arange(2.0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Registered(Derived):
    k: float = 3.0
    array: object = dataclasses.field(default_factory=lambda: jnp.arange(2.0))


class Part(liftnn.Module, Derived):
    def __init__(self):
        self.k, self.array = 3.0, jnp.arange(2.0)


class Net(liftnn.Module):
    def __init__(self, part):
        self.part = part
        self.w = liftnn.Param(jnp.ones(2))

    def __call__(self, x):
        self.w.value = self.w.value + 1
        return x * self.w * self.part.twice + self.part.scaled


KINDS = {"frozen": Frozen, "static": Config, "dataclass": Record, "registered": Registered, "module": Part}
TRANSFORMS = {
    "jit": liftnn.jit,
    "remat": liftnn.remat,
    "value_and_grad": lambda f: (
        lambda *a: liftnn.value_and_grad(lambda *a: (f(*a).sum(), f(*a)), has_aux=True)(*a)[0][1]
    ),
    "jit of remat": lambda f: liftnn.jit(liftnn.remat(f)),
    "scan": lambda f: lambda *a: liftnn.scan(lambda c, _: (c, f(*a)), length=1)(0.0, None)[1][0],
}
WAYS = {
    "passed": lambda transform, net: functools.partial(transform(lambda net, x: net(x)), net),
    "captured": lambda transform, net: transform(lambda x: net(x)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cached_property_that_is_first_read_under_a_transform_has_its_value(kind, transform, way):
    def runs(wrap):
        net = Net(KINDS[kind]())
        f = WAYS[way](wrap, net)
        outputs = [f(jnp.full(2, float(i))) for i in range(3)]
        if transform != "scan":  # its body is traced once for all calls
            net.part = type(net.part)(5.0) if kind != "module" else net.part
        outputs += [f(jnp.ones(2)), f(jnp.ones(3)[:2])]
        assert not has_tracer(net)
        return outputs, net.w, net.part.scaled, net.part.twice

    plain = (lambda f: lambda *a: (f(*a), f(*a))[1]) if transform == "value_and_grad" else lambda f: f
    assert_same(runs(TRANSFORMS[transform]), runs(plain))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cached_property_that_was_read_before_is_kept(kind):
    net = Net(KINDS[kind]())
    before = net.part.scaled
    liftnn.jit(lambda x: net(x))(jnp.ones(2))
    liftnn.jit(lambda net, x: net(x))(net, jnp.ones(2))
    assert net.part.scaled is before


def test_a_cached_property_of_frozen_settings_causes_no_retrace():
    net, traces = Net(Config()), []
    f = liftnn.jit(lambda net, x: (traces.append(1), net(x))[1])
    for _ in range(3):
        f(net, jnp.ones(2))
    assert len(traces) == 1


def test_another_change_of_a_captured_frozen_dataclass_raises_and_is_undone():
    net = Net(Frozen())

    def f(x):
        object.__setattr__(net.part, "k", x)
        return net(x)

    with raises(
        liftnn.TraceContextError,
        "net.part (a Frozen) was changed in liftnn.jit. The function captures it, and only the values of captured "
        "Variables can be changed.\nMake it an attribute of a module if it is not one, and pass that module as an "
        "argument to the function given to liftnn.jit.",
    ):
        liftnn.jit(f)(jnp.ones(2))
    assert_same(net, Net(Frozen()))
