"""A module may hold bound methods of its other parts: of dataclasses, namespaces, lists, dicts, sets and pytrees."""

from __future__ import annotations

import collections
import dataclasses
import pickle
import types

import jax
import jax.numpy as jnp
import pytest
from tests.same import assert_same, has_tracer
from tests.user_modules import Holder

import liftnn

pytestmark = pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")


@dataclasses.dataclass
class Config:
    b: object = 2.0

    def scale(self, x):
        return x * self.b


@dataclasses.dataclass(frozen=True)
class Frozen:
    parts: list

    def scale(self, x):
        return x * self.parts[0]


class Space(types.SimpleNamespace):
    def scale(self, x):
        return x * self.b


class Items(list):
    def scale(self, x):
        return x * self[0]


@jax.tree_util.register_pytree_node_class
class Pair:
    def __init__(self, b):
        self.b = b

    def scale(self, x):
        return x * self.b

    def tree_flatten(self):
        return (self.b,), None

    @classmethod
    def tree_unflatten(cls, aux, children):
        return cls(*children)


def write(name):
    return lambda part, value: setattr(part, name, value)


def first(part, value):
    part[0] = value


PARTS = {
    "a dataclass": (Config, write("b")),
    "a frozen dataclass": (lambda: Frozen([2.0]), lambda part, value: first(part.parts, value)),
    "a namespace": (lambda: Space(b=2.0), write("b")),
    "a list": (lambda: Items([2.0]), first),
}
TRANSFORMS = {
    "jit": liftnn.jit,
    "jit of jit": lambda f: liftnn.jit(lambda m, x: liftnn.jit(f)(m, x)),
    "remat": liftnn.remat,
    "scan": lambda f: (
        lambda m, x: liftnn.scan(
            lambda m, x: (m, f(m, x)), in_axes=(liftnn.Carry, None), out_axes=(liftnn.Carry, 0), length=1
        )(m, x)[1][0]
    ),
}


def make(name):
    part = PARTS[name][0]()
    return Holder(part=part, act=part.scale)


@pytest.mark.parametrize("value", [9.0, "array"])
@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("transform", ["jit", "jit of jit", "remat"])
def test_a_change_inside_and_outside_is_seen(transform, name, value):
    value = jnp.float32(9.0) if value == "array" else value
    m, plain = make(name), make(name)
    change = PARTS[name][1]

    def f(m, x):
        before = m.act(x)
        change(m.part, value)
        return before, m.act(x)

    assert_same(TRANSFORMS[transform](f)(m, 1.0), f(plain, 1.0))
    assert m.act.__self__ is m.part
    call = TRANSFORMS[transform](lambda m, x: m.act(x))
    for new in (3.0, jnp.float32(4.0), jnp.float32(5.0), 6.0):
        change(m.part, new)
        assert float(call(m, 2.0)) == 2 * float(new)


def test_a_method_of_a_pytree_is_rebuilt_with_it():
    pair = Pair(jnp.float32(2.0))
    m = Holder(act=pair.scale)
    call = liftnn.jit(lambda m, x: m.act(x))
    assert float(call(m, 1.0)) == 2
    m.act = Pair(jnp.float32(3.0)).scale
    assert float(call(m, 1.0)) == 3
    assert call.n_traces == 1


BUILT_IN = {
    "list.append": (list, "append", 1.0),
    "list.insert": (list, "insert", 0, 1.0),
    "own list": (Items, "append", 1.0),
    "dict.setdefault": (dict, "setdefault", "a", 1.0),
    "OrderedDict.get": (lambda: collections.OrderedDict(a=2.0), "get", "a"),
    "set.add": (set, "add", 3),
    "deque.appendleft": (collections.deque, "appendleft", 1.0),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_method_acts_on_the_same_container(name):
    def build():
        container = BUILT_IN[name][0]()
        return Holder(items=container, act=getattr(container, BUILT_IN[name][1]))

    args = BUILT_IN[name][2:]

    def f(m):
        m.act(*args)
        return len(m.items)

    m, plain = build(), build()
    call = liftnn.jit(f)
    for _ in range(3):
        assert int(call(m)) == f(plain)
        assert not has_tracer(m)
        assert_same(m.items, plain.items)
    m.items.clear()
    plain.items.clear()
    assert int(call(m)) == f(plain)


def test_what_a_method_belongs_to_is_shared_in_copies_and_descriptions():
    m = Holder(items=[1], part=Config())
    m.add, m.act = m.items.append, m.part.scale
    for copy in (liftnn.clone(m), liftnn.merge(*reversed(liftnn.split(m)))):
        copy.add(2)
        copy.part.b = 5.0
        assert copy.items == [1, 2]
        assert copy.act(1.0) == 5.0
    assert m.items == [1]
    assert m.act(1.0) == 2.0
    graphdef = liftnn.split(m)[-1]
    assert pickle.loads(pickle.dumps(graphdef)) == graphdef
    assert "append" in repr(m)


@dataclasses.dataclass(frozen=True)
class Partly:
    a: int
    b: object = dataclasses.field(default=2.0, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "c", self.b)


CLOSURES = {
    "a dataclass": lambda: (c := Config(), lambda x: x * c.b, lambda v: write("b")(c, v)),
    "a list of dataclasses": lambda: (
        cs := [Config()],
        lambda x: x * cs[0].b,
        lambda v: write("b")(cs[0], v),
    ),
    "a dataclass in a dataclass": lambda: (
        c := Config(Config()),
        lambda x: x * c.b.b,
        lambda v: write("b")(c.b, v),
    ),
    "a default": lambda: (c := Config(), lambda x, c=c: x * c.b, lambda v: write("b")(c, v)),
}


@pytest.mark.parametrize("name", CLOSURES)
@pytest.mark.parametrize("passed", [True, False], ids=["passed", "captured"])
def test_a_dataclass_in_the_closure_of_a_modules_function_is_compared_by_content(name, passed):
    _, act, change = CLOSURES[name]()
    m = Holder(act=act)
    call = liftnn.jit((lambda m, x: m.act(x)) if passed else (lambda x: m.act(x)))
    args = (m, 2.0) if passed else (2.0,)
    for value in (2.0, 3.0, 3.0, 4.0):
        change(value)
        assert float(call(*args)) == 2 * value
    assert call.n_traces == 3


@pytest.mark.parametrize("attribute", ["b", "c"])
def test_a_frozen_dataclass_in_a_closure_is_compared_with_all_that_it_holds(attribute):
    def make(value):
        held = Partly(1, value)
        return lambda x: x * getattr(held, attribute)

    m = Holder(act=make(2.0))
    call = liftnn.jit(lambda m, x: m.act(x))
    for value in (2.0, 9.0, 9.0):
        m.act = make(value)
        assert float(call(m, 1.0)) == value
    assert call.n_traces == 2
