"""A class may say itself what its state is: `__getstate__`, `__setstate__` and `__reduce__`, in copies and pickles."""

from __future__ import annotations

import copy
import dataclasses
import threading

import jax.numpy as jnp
import pytest
from tests.modules.test_pickling import COPIES, every_copy
from tests.strategies import Node
from tests.user_modules import Twice

import liftnn


class WithLock(Node):
    """A module that leaves out what cannot be copied, as classes do in plain Python."""

    def __getstate__(self):
        state = dict(vars(self))
        del state["lock"]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.lock = threading.Lock()


class Versioned(Node):
    def __getstate__(self):
        return 1, super().__getstate__()

    def __setstate__(self, state):
        version, attributes = state
        assert version == 1
        del attributes["lock"]
        super().__setstate__(attributes)


class WithoutLock(Node):
    def __getstate__(self):
        return {name: x for name, x in super().__getstate__().items() if name != "lock"}


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots(liftnn.Module):
    """Python gives it a `__getstate__` that knows the fields only."""

    w: liftnn.Param


class Rebuilt(Node):
    def __reduce__(self):
        return Rebuilt, (), {"w": self.w}


class Once(Twice):
    """A descriptor that is set in `__init__` only."""

    def __set__(self, module, x):
        assert "open" in vars(module)
        vars(module)[self.name] = x


class WithDescriptors(liftnn.Module):
    """A module with attributes that are stored under the names of descriptors."""

    rate = Twice()
    size = Once()

    def __init__(self):
        self.open = True
        self.rate, self.size = 1.0, 3
        vars(self)["depth"] = 4
        del self.open

    @property
    def depth(self):
        return vars(self)["depth"]


@pytest.mark.parametrize("make_copy", [*COPIES.values(), copy.copy], ids=[*COPIES, "copy"])
def test_what_is_stored_under_the_name_of_a_descriptor_is_copied_as_it_is(make_copy):
    for module in (make_copy(WithDescriptors()), make_copy(Node(a=WithDescriptors())).a):
        assert vars(module) == {"rate": 2.0, "size": 3, "depth": 4}


@every_copy
@pytest.mark.parametrize("cls", [WithLock, WithoutLock])
@pytest.mark.parametrize("place", ["root", "attribute", "list", "cycle"])
def test_a_class_may_say_itself_what_its_state_is(cls, place, make_copy):
    inner = cls(w=liftnn.Param(jnp.ones(2)), lock=threading.Lock())
    inner.tied = Node(w=inner.w)
    model = Node(first=inner, w=inner.w, many=[inner, {"k": inner}])
    if place == "cycle":
        inner.up = model
    if place == "list":
        del model.first
    new = make_copy(inner if place == "root" else model)
    found = new if place == "root" else new.many[0]
    assert hasattr(found, "lock") == (cls is WithLock)
    assert hasattr(inner, "lock")
    assert found.tied.w is found.w
    assert found.w is not inner.w
    assert found.w.value.tolist() == [1, 1]
    if place != "root":
        assert new.many[1]["k"] is found
        assert new.w is found.w
        assert getattr(new, "first", found) is found
    assert getattr(found, "up", new) is new
    assert liftnn.jit(lambda m: m.w + 1)(found).tolist() == [2, 2]


@pytest.mark.parametrize("cls", [WithLock, WithoutLock])
def test_a_shallow_copy_asks_the_class_for_its_state(cls):
    model = cls(w=liftnn.Param(jnp.ones(2)), lock=threading.Lock())
    new = copy.copy(model)
    assert new.w is model.w
    assert getattr(new, "lock", None) is not model.lock


def test_a_state_may_have_any_form():
    model = Versioned(w=liftnn.Param(jnp.ones(2)), lock=3)
    for make_copy in (*COPIES.values(), copy.copy):
        new = make_copy(model)
        assert list(vars(new)) == ["w"]
        assert new.w.value.tolist() == [1, 1]


@every_copy
def test_a_frozen_dataclass_with_slots_keeps_its_other_attributes(make_copy):
    model = FrozenSlots(liftnn.Param(jnp.ones(2)))
    vars(model)["other"] = model.w
    for new in (make_copy(model), make_copy(Node(a=model)).a):
        assert new.other is new.w
        assert new.w.value.tolist() == [1, 1]


@pytest.mark.parametrize("make_copy", list(COPIES.values())[1:], ids=list(COPIES)[1:])
def test_a_class_that_says_how_it_is_pickled_is_asked_inside_a_model_too(make_copy):
    inner = Rebuilt(w=liftnn.Param(jnp.ones(2)), lock=threading.Lock())
    new = make_copy(Node(a=inner, b=inner, w=inner.w))
    assert type(new.a) is Rebuilt
    assert new.a is new.b
    assert new.a.w is new.w
    assert list(vars(new.a)) == ["w"]
