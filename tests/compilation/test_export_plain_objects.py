"""An exported function of modules that hold plain objects: they fit by class and by what the code reads."""

from __future__ import annotations

import copy
import pickle

import jax.numpy as jnp
import pytest

import liftnn
from liftnn import errors
from tests.compilation.test_export import CARRIES, NEW
from tests.raising import raises
from tests.same import assert_same

X = jnp.arange(3.0)


class Config:
    """The configuration that users write: a class without `__eq__`."""

    def __init__(self, **options):
        self.rate = 0.5
        self.widths = [2, 3]
        self.scales = {"a": 2.0}
        self.note = "unread"
        vars(self).update(options)

    def scaled(self, x):
        return x * self.rate


class Slotted:
    """The same with slots."""

    __slots__ = ("note", "rate")

    def __init__(self, rate=0.5, note="unread"):
        self.rate = rate
        self.note = note


class Node:
    """One that leads back to itself."""

    def __init__(self, rate=0.5):
        self.rate = rate
        self.me = self


class Model(liftnn.Module):
    """A model that holds an object, and reads it in `f`."""

    def __init__(self, held, f):
        self.held = held
        self.w = liftnn.Param(jnp.full(3, 2.0))
        self.f = f

    def __call__(self, x):
        return self.f(self, x) * self.w


def by_rate(m, x):
    return x * m.held.rate


def by_method(m, x):
    return m.held.scaled(x)


def by_list(m, x):
    return x * sum(m.held.widths)


def by_dict(m, x):
    return x * m.held.scales["a"]


def by_inner(m, x):
    return x * m.held.inner.rate


def by_all(m, x):
    return x * sum(v for v in vars(m.held).values() if isinstance(v, float))


def in_list(m, x):
    return x * m.held[1].rate


def in_tuple(m, x):
    return x * m.held[0][0].rate


def cyclic(m, x):
    return x * m.held.me.me.rate


def inner(rate=0.5):
    return Config(inner=Config(rate=rate, widths=[7]))


CASES = {
    "number": (lambda: Config(), by_rate, lambda: Config(rate=0.25), "held"),
    "method": (lambda: Config(), by_method, lambda: Config(rate=0.25), "held"),
    "list": (lambda: Config(), by_list, lambda: Config(widths=[2, 4]), "held"),
    "dict": (lambda: Config(), by_dict, lambda: Config(scales={"a": 3.0}), "held"),
    "object in an object": (inner, by_inner, lambda: inner(0.25), "held"),
    "all attributes": (lambda: Config(), by_all, lambda: Config(rate=0.25), "held"),
    "slots": (Slotted, by_rate, lambda: Slotted(0.25), "held"),
    "cycle": (Node, cyclic, lambda: Node(0.25), "held"),
    "in a list": (lambda: [1, Config()], in_list, lambda: [1, Config(rate=0.25)], "held[1]"),
    "in tuples": (lambda: ((Config(),),), in_tuple, lambda: ((Config(rate=0.25),),), "held[0][0]"),
    "another class": (Config, by_rate, Slotted, "held"),
    "none": (Config, by_rate, lambda: None, "held"),
}
"""What makes the object, the code that reads it, what makes another one, and the path of the difference."""


@pytest.mark.parametrize("carry", CARRIES.values(), ids=CARRIES)
@pytest.mark.parametrize("make, f, make_other, path", CASES.values(), ids=CASES)
def test_an_equal_object_fits_and_another_one_does_not(make, f, make_other, path, carry):
    exported = carry(liftnn.export(liftnn.jit(Model(make(), f)))(X))
    for model in (
        Model(make(), f),
        copy.deepcopy(Model(make(), f)),
        pickle.loads(pickle.dumps(Model(make(), f))),
    ):
        model.w.value = jnp.full(3, 5.0)
        assert_same(exported.call(model, X), model(X))
    with pytest.raises(errors.StructureError) as caught:
        exported.call(Model(make_other(), f), X)
    assert f"args[0].{path}" in str(caught.value)


@pytest.mark.parametrize("carry", CARRIES.values(), ids=CARRIES)
def test_an_attribute_that_the_code_does_not_read_may_differ(carry):
    exported = carry(liftnn.export(liftnn.jit(Model(Config(), by_rate)))(X))
    model = Model(Config(note="another", widths=[9], more=object()), by_rate)
    assert_same(exported.call(model, X), model(X))


@pytest.mark.parametrize("carry", CARRIES.values(), ids=CARRIES)
def test_an_object_that_no_code_reads_fits_by_its_class(carry):
    exported = carry(liftnn.export(liftnn.jit(lambda m, x: m.w * x))(Model(Config(rate=1.0), None), X))
    model = Model(Config(rate=0.25), None)
    assert_same(exported.call(model, X), model.w * X)


def test_the_error_shows_the_class_and_what_the_code_reads():
    exported = liftnn.export(liftnn.jit(Model(Config(rate=1.0), by_rate)))(X)
    with raises(
        errors.StructureError,
        "This program was exported for arguments of another structure:\n"
        "args[0].held: Config(rate=1.0) -> Config(rate=0.5)\n" + NEW,
    ):
        exported.call(Model(Config(), by_rate), X)


@pytest.mark.parametrize("carry", CARRIES.values(), ids=CARRIES)
def test_what_the_trace_itself_writes_may_differ(carry):
    def counted(m, x):
        m.held.calls = getattr(m.held, "calls", 0) + 1
        return x * m.held.rate

    exported = carry(liftnn.export(liftnn.jit(lambda m, x: counted(m, x) * m.w))(Model(Config(), None), X))
    for calls in (0, 7):
        model = Model(Config(calls=calls), None)
        assert_same(exported.call(model, X), X * 0.5 * model.w)
