"""Attributes that are written past `Module.__setattr__`: any value, of modules in every position of a call."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tests.same import assert_same
from tests.user_modules import Holder

import liftnn


def layer(x: float) -> Any:
    return Holder(w=liftnn.Param(jnp.float32(x)))


class Plain:
    def __init__(self, x):
        self.x = x


VALUES: dict[str, tuple[Callable[[float], Any], Callable[[Any], Any]]] = {
    "module": (layer, lambda v: v.w.value),
    "list": (lambda x: [layer(x)], lambda v: v[0].w.value),
    "dict": (lambda x: {"a": layer(x)}, lambda v: v["a"].w.value),
    "tuple": (lambda x: (layer(x),), lambda v: v[0].w.value),
    "Variable": (lambda x: liftnn.Param(jnp.float32(x)), lambda v: v.value),
    "array": (jnp.float32, lambda v: v),
    "numpy array": (np.float32, lambda v: v),
    "number": (float, lambda v: v),
    "function": (lambda x: (lambda: 3) if x == 3 else (lambda: 9), lambda v: v()),
    "namespace": (lambda x: types.SimpleNamespace(x=x), lambda v: v.x),
    "plain object": (Plain, lambda v: v.x),
}
"""Makes a value of an attribute from a number, and reads the number."""

ARGUMENTS: dict[str, tuple[Callable[[Any], tuple[Any, ...]], Callable[..., Any]]] = {
    "alone": (lambda m: (m,), lambda m: m),
    "first": (lambda m: (m, layer(1)), lambda m, _: m),
    "second": (lambda m: (layer(1), m), lambda _, m: m),
    "in a list": (lambda m: (layer(1), [m]), lambda _, ms: ms[0]),
    "in a dict": (lambda m: (layer(1), {"m": m}), lambda _, ms: ms["m"]),
    "inside the second": (lambda m: (layer(1), Holder(m=m)), lambda _, outer: outer.m),
    "behind a weak reference": (lambda m: (Holder(m=weakref.ref(m)),), lambda outer: outer.m()),
}
"""The arguments of a call with a module, and the way to the module."""


@pytest.mark.parametrize("make, read", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("arguments, find", ARGUMENTS.values(), ids=ARGUMENTS)
def test_the_next_call_sees_it(make, read, arguments, find):
    def replay(transform):
        model = Holder(v=make(3))
        args = arguments(model)
        f = transform(lambda *args: jnp.ones(2) * read(find(*args).v))
        before = [f(*args) for _ in range(3)]
        object.__setattr__(model, "v", make(9))
        return before, [f(*args) for _ in range(2)]

    assert_same(replay(liftnn.jit), replay(lambda f: f))


def test_it_is_seen_where_an_attribute_of_that_name_varies_in_another_module():
    def replay(transform):
        one, other = Holder(mode=True), Holder(mode=0.5)
        f = transform(lambda one, other: jnp.ones(2) * (2 if one.mode else 3) * other.mode)
        found = []
        for mode in (True, False, True, False):
            one.mode = mode
            found += [f(one, other), f(one, other)]
        object.__setattr__(other, "mode", 0.75)
        return found, f(one, other)

    assert_same(replay(liftnn.jit), replay(lambda f: f))


@pytest.mark.parametrize("value", VALUES)
def test_a_fast_path_keeps_no_argument_alive(value):
    first, second = layer(1), Holder(v=VALUES[value][0](3))
    second.link = first
    f = liftnn.jit(lambda a, b: a.w * 2)
    f(first, second), f(first, second)
    references = weakref.ref(first), weakref.ref(second)
    del second
    assert references[1]() is None
    del first
    assert references[0]() is None
