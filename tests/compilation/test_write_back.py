"""A compiled function sets array leaves and replaces Variables, in holders of every kind, as in plain Python."""

from __future__ import annotations

import collections
import dataclasses
import types
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest

import liftnn
from liftnn.compat import nnx
from tests.same import assert_same
from tests.user_modules import Holder, WithDescriptor, WithProperty


class WritesTwice(dict):
    def __setitem__(self, key, x):
        dict.__setitem__(self, key, x * 2)


class ReadsTwice(dict):
    def __getitem__(self, key):
        return dict.__getitem__(self, key) * 2


class OrderedTwice(collections.OrderedDict):
    def __setitem__(self, key, x):
        collections.OrderedDict.__setitem__(self, key, x * 2)

    def __getitem__(self, key):
        return collections.OrderedDict.__getitem__(self, key) * 2


class ListWritesTwice(list):
    def __setitem__(self, at, x):
        list.__setitem__(self, at, x * 2)


class ListReadsTwice(list):
    def __getitem__(self, at):
        return list.__getitem__(self, at) * 2


class DequeTwice(collections.deque):
    def __setitem__(self, at, x):
        collections.deque.__setitem__(self, at, x * 2)

    def __getitem__(self, at):
        return collections.deque.__getitem__(self, at) * 2


@dataclasses.dataclass
class Record:
    x: Any


class Slotted(liftnn.Module):
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


def add_to_item(key: Any) -> Callable[[Any], None]:
    def add(holder):
        holder[key] = holder[key] + 1

    return add


def add_to_attribute(holder: Any) -> None:
    holder.x = holder.x + 1


HOLDERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], None]]] = {
    "list": (lambda x: [x, x], add_to_item(1)),
    "dict": (lambda x: {"a": x}, add_to_item("a")),
    "dict with a number as key": (lambda x: {1: x}, add_to_item(1)),
    "OrderedDict": (lambda x: collections.OrderedDict(a=x), add_to_item("a")),
    "defaultdict": (lambda x: collections.defaultdict(list, a=x), add_to_item("a")),
    "deque": (lambda x: collections.deque([x, x]), add_to_item(1)),
    "dict that writes other values": (lambda x: WritesTwice(a=x), add_to_item("a")),
    "dict that reads other values": (lambda x: ReadsTwice(a=x), add_to_item("a")),
    "OrderedDict that does both": (lambda x: OrderedTwice(a=x), add_to_item("a")),
    "list that writes other values": (lambda x: ListWritesTwice([x, x]), add_to_item(1)),
    "list that reads other values": (lambda x: ListReadsTwice([x, x]), add_to_item(1)),
    "deque that does both": (lambda x: DequeTwice([x, x]), add_to_item(1)),
    "SimpleNamespace": (lambda x: types.SimpleNamespace(x=x), add_to_attribute),
    "dataclass": (Record, add_to_attribute),
    "module": (lambda x: Holder(x=x), add_to_attribute),
    "module with a slot": (Slotted, add_to_attribute),
    "module with a property": (WithProperty, add_to_attribute),
    "module with a descriptor": (WithDescriptor, add_to_attribute),
    "nnx.List": (lambda x: nnx.List([x, x]), add_to_item(1)),
    "nnx.Dict": (lambda x: nnx.Dict({"a": x}), add_to_item("a")),
}
"""Makes the holder of an array, and replaces the array."""


def replay(make: Callable[[Any], Any], add: Callable[[Any], None], transform: Callable[[Any], Any]) -> Any:
    """Set an array by two functions in turn; return what they return, and copies of the model."""
    model = Holder(holder=make(jnp.ones(2)), w=liftnn.Param(jnp.ones(2)))

    def add_once(model):
        add(model.holder)
        return model.w * 2

    def add_twice(model):
        add(model.holder)
        add(model.holder)

    add_once, add_twice = transform(add_once), transform(add_twice)
    return [(add_once(model), add_twice(model), liftnn.clone(model)) for _ in range(4)]


@pytest.mark.parametrize("make, add", HOLDERS.values(), ids=HOLDERS)
def test_an_array_is_set_in_its_holder(make, add):
    assert_same(replay(make, add, liftnn.jit), replay(make, add, lambda f: f))


VARIABLES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "nnx.List": (lambda v: nnx.List([v, liftnn.Param(jnp.ones(2))]), 0),
    "nnx.Dict": (lambda v: nnx.Dict({"a": v}), "a"),
    "list": (lambda v: [v], 0),
    "dict": (lambda v: {"a": v}, "a"),
}
"""Makes the holder of a Variable, and its key."""


@pytest.mark.parametrize("make, key", VARIABLES.values(), ids=VARIABLES)
def test_a_variable_is_replaced_in_its_holder(make, key):
    def replay(transform):
        model = Holder(holder=make(liftnn.Param(jnp.ones(2))))

        def replace(model):
            model.holder[key] = liftnn.Param(model.holder[key] + 1)

        replace, read = transform(replace), transform(lambda model: model.holder[key] * 2)
        return [(replace(model), read(model), read(model), model.holder[key].value) for _ in range(4)]

    assert_same(replay(liftnn.jit), replay(lambda f: f))
