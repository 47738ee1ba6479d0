"""All ways to define a class of modules: plain, dataclass, slots, several bases, generic, properties."""

from __future__ import annotations

import abc
import copy
import dataclasses
import functools
import pickle
from typing import Generic, TypeVar

import jax.numpy as jnp
import pytest
from tests.alike import find_difference
from tests.strategies import Node

import liftnn


@dataclasses.dataclass
class Dense(liftnn.Module):
    size: int
    rngs: dataclasses.InitVar[int] = 0
    scale: float = 1.0
    layers: list = dataclasses.field(default_factory=list)

    def __post_init__(self, rngs):
        self.w = liftnn.Param(jnp.full(self.size, rngs + 1.0))


@dataclasses.dataclass(frozen=True)
class FrozenDense(liftnn.Module):
    size: int
    w: liftnn.Param


@dataclasses.dataclass(slots=True)
class SlottedDense(liftnn.Module):
    size: int
    w: liftnn.Param


class Slots(liftnn.Module):
    __slots__ = ("size", "w")

    def __init__(self, size, w):
        self.size, self.w = size, w


class MoreSlots(Slots):
    __slots__ = "extra"

    def __init__(self, size, w):
        super().__init__(size, w)
        self.extra = [w]
        self.free = 1


class Named:
    def name(self):
        return f"{type(self).__name__}-{self.size}"


class Base(liftnn.Module, abc.ABC):
    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    @abc.abstractmethod
    def __call__(self): ...


class Weighted(liftnn.Module):
    def __init__(self, w, **kwargs):
        super().__init__(**kwargs)
        self.w = w


class Diamond(Named, Base, Weighted):
    def __call__(self):
        return self.name(), self.w.value.sum()


T = TypeVar("T")


class Of(liftnn.Module, Generic[T]):
    def __init__(self, size, w):
        self.size, self.w = size, w


class Cached(Node):
    @functools.cached_property
    def total(self):
        return self.w.value.sum() * self.size

    @property
    def half(self):
        return self.size / 2


CLASSES = {
    "plain": lambda: Node(size=2, w=liftnn.Param(jnp.ones(2))),
    "dataclass": lambda: Dense(2),
    "frozen dataclass": lambda: FrozenDense(2, liftnn.Param(jnp.ones(2))),
    "dataclass with slots": lambda: SlottedDense(2, liftnn.Param(jnp.ones(2))),
    "slots": lambda: Slots(2, liftnn.Param(jnp.ones(2))),
    "slots of a base": lambda: MoreSlots(2, liftnn.Param(jnp.ones(2))),
    "multiple inheritance": lambda: Diamond(size=2, w=liftnn.Param(jnp.ones(2))),
    "generic": lambda: Of[int](2, liftnn.Param(jnp.ones(2))),
    "properties": lambda: Cached(size=2, w=liftnn.Param(jnp.ones(2))),
}


@pytest.mark.parametrize("make", CLASSES.values(), ids=CLASSES)
def test_every_way_to_define_a_module_works(make):
    model = make()
    assert list(liftnn.state(model).flat()) == [("w",)]
    for new in (liftnn.clone(model), liftnn.merge(*reversed(liftnn.split(model)))):
        assert find_difference(model, new) is None
        assert (new.size, new.w.value.sum()) == (2, 2)
    liftnn.jit(lambda m: setattr(m.w, "value", m.w.value * m.size))(model)
    assert model.w.value.tolist() == [2, 2]


class Lazy(liftnn.Module):
    """A module with a slot that is empty until it is needed, and a `__getattr__` that answers for every name."""

    __slots__ = ("cache",)

    def __init__(self):
        self.w = liftnn.Param(jnp.ones(2))

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return "computed"

    def is_empty(self):
        try:
            object.__getattribute__(self, "cache")
        except AttributeError:
            return True
        return False


EMPTY_SLOTS = {
    "clone": liftnn.clone,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "merge": lambda m: liftnn.merge(*reversed(liftnn.split(m))),
    "a function that changes it": lambda m: liftnn.jit(lambda m: setattr(m, "n", 1) or m)(m),
    "a function that fills and empties it": lambda m: liftnn.jit(
        lambda m: setattr(m, "cache", 1) or delattr(m, "cache") or m
    )(m),
}


@pytest.mark.parametrize("make", EMPTY_SLOTS.values(), ids=EMPTY_SLOTS)
def test_an_empty_slot_stays_empty_whatever_getattr_says(make):
    new = make(Lazy())
    assert new.is_empty()
    assert (new.cache, new.w.value.tolist()) == ("computed", [1, 1])


def test_a_slot_is_filled_and_emptied_by_functions():
    model = Lazy()
    liftnn.jit(lambda m: setattr(m, "cache", 1))(model)
    assert model.cache == 1
    liftnn.jit(lambda m: delattr(m, "cache"))(model)
    assert model.is_empty()


def test_methods_of_all_bases_work_on_a_clone():
    model = CLASSES["multiple inheritance"]()
    assert liftnn.clone(model)() == ("Diamond-2", 2.0)


def test_a_cached_property_is_an_attribute_once_it_was_read():
    model = CLASSES["properties"]()
    assert model.total == 4
    assert liftnn.clone(model).total == 4
    assert model.half == 1
