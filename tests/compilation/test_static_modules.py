"""A module inside of a static argument is seen like anywhere else, or refused with its path; never stale."""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
import weakref

import jax.numpy as jnp
import pytest

import liftnn
from tests.raising import raises
from tests.user_modules import Holder

pytestmark = pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")

Two = collections.namedtuple("Two", "first second")


@dataclasses.dataclass(frozen=True)
class Config:
    """A frozen dataclass."""

    size: int
    model: object


@dataclasses.dataclass(eq=False)
class Mutable:
    """A dataclass that is hashable by identity."""

    model: object


class Plain:
    """An object that is hashable by identity."""

    def __init__(self, model):
        self.model = model


class Slots:
    """An object with a slot."""

    __slots__ = ("model",)

    def __init__(self, model):
        self.model = model


class HashableList(list):
    """A list that is hashable by identity."""

    __hash__ = object.__hash__


def closure(model):
    return lambda: model


def default(model):
    def f(model=model):
        return model

    return f


def the_model(x):
    """The module, from any of the holders."""
    if isinstance(x, (liftnn.Module, liftnn.Variable)):
        return x
    if isinstance(x, (tuple, list)):
        return the_model(x[-1])
    if isinstance(x, frozenset):
        return the_model(next(iter(x)))
    if isinstance(x, functools.partial):
        return the_model(x.args[0] if x.args else x())
    if isinstance(x, types.MethodType):
        return x.__self__
    return the_model(x() if callable(x) else x.model)


REFUSED = {
    "module": (lambda m: m, "is a Holder"),
    "tuple": (lambda m: (1, m), "contains a Holder"),
    "nested tuple": (lambda m: (1, (2, (m,))), "contains a Holder"),
    "namedtuple": (lambda m: Two(1, m), "contains a Holder"),
    "frozenset": (lambda m: frozenset([m]), "contains a Holder"),
    "frozen dataclass": (lambda m: Config(1, m), "contains a Holder"),
    "dataclass in a tuple": (lambda m: (Config(1, (m,)),), "contains a Holder"),
    "dataclass": (Mutable, "contains a Holder"),
    "Variable": (lambda m: m.v, "is a Variable"),
    "Variable in a tuple": (lambda m: (m.v,), "contains a Variable"),
}
OTHERS = {
    "closure": closure,
    "default": default,
    "partial": lambda m: functools.partial(abs, m),
    "bound method": lambda m: m.split,
    "weak reference": weakref.ref,
    "plain object": Plain,
    "slots": Slots,
    "list that is hashable": lambda m: HashableList([m]),
    "closure in a tuple": lambda m: (closure(m),),
    "partial of a closure": lambda m: functools.partial(closure(m)),
}


def text(name, what):
    return (
        f"{name} {what}, so it cannot be static: later changes to the module would not be seen.\n"
        "Remove it from static_argnums and static_argnames; static attributes of modules are part of the cache key "
        "anyway."
    )


def make():
    return Holder(k=2, v=liftnn.Variable(jnp.float32(3.0)))


@pytest.mark.parametrize("name", REFUSED)
def test_a_module_in_an_immutable_container_is_refused_with_its_path(name):
    hold, what = REFUSED[name]
    with raises(liftnn.ArgumentError, text("args[1]", what)):
        liftnn.jit(lambda x, s: x, static_argnums=1)(1.0, hold(make()))
    with raises(liftnn.ArgumentError, text("kwargs['s']", what)):
        liftnn.jit(lambda x, s: x, static_argnames="s")(1.0, s=hold(make()))


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_after_good_calls_too(name):
    hold, what = REFUSED[name]
    f = liftnn.jit(lambda x, s: x, static_argnums=1)
    f(1.0, 2)
    f(1.0, 2)
    with raises(liftnn.ArgumentError, text("args[1]", what)):
        f(1.0, hold(make()))
    assert f(1.0, 2) == 1


def use(x, s):
    model = the_model(s)
    return x * model.k * model.v.value


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", OTHERS)
def test_a_module_that_a_static_argument_leads_to_otherwise_is_never_stale(name):
    model = make()
    held = OTHERS[name](model)
    f = liftnn.jit(use, static_argnums=1)
    try:
        first = f(1.0, held)
    except liftnn.LiftError:
        return
    assert first == use(1.0, held)
    for k, v in ((2, 5.0), (7, 5.0), (7, 1.0), (2, 3.0)):
        model.k = k
        model.v.value = jnp.float32(v)
        assert f(1.0, held) == use(1.0, held)
        assert f(1.0, held) == use(1.0, held)


def write(x, s):
    model = the_model(s)
    model.v.value = model.v * 2 + x
    return model.v.value


@pytest.mark.parametrize("name", OTHERS)
def test_a_write_to_it_is_seen_or_an_error(name):
    model, plain = make(), make()
    held = OTHERS[name](model)
    f = liftnn.jit(write, static_argnums=1)
    for _ in range(3):
        try:
            out = f(1.0, held)
        except liftnn.LiftError:
            assert model.v == plain.v
            return
        assert out == write(1.0, plain)
        assert model.v == plain.v


@pytest.mark.parametrize("name", OTHERS)
def test_another_module_in_the_next_one_is_told_apart(name):
    f = liftnn.jit(use, static_argnums=1)
    models = [Holder(k=k, v=liftnn.Variable(jnp.float32(k))) for k in (2, 3)]
    helds = [OTHERS[name](m) for m in models]
    for _ in range(2):
        for held in helds:
            try:
                assert f(1.0, held) == use(1.0, held)
            except liftnn.LiftError:
                return
