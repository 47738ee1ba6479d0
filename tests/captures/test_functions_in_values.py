"""A function that a module holds in some value: a change of what the function refers to is seen by the next call.

The oracle is the plain call.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import types

import jax.numpy as jnp
import pytest

import liftnn


@dataclasses.dataclass(frozen=True)
class Frozen:
    f: object


Named = collections.namedtuple("Named", "f")


def call(g, x):
    return g(x)


def in_a_closure(held, get):
    return lambda x: get(held)(x)


HOLDERS = {
    "attribute": (lambda f: f, lambda h: h),
    "list": (lambda f: [f], lambda h: h[0]),
    "tuple": (lambda f: (f,), lambda h: h[0]),
    "tuple in a tuple": (lambda f: ((f,), 1), lambda h: h[0][0]),
    "named tuple": (Named, lambda h: h.f),
    "partial": (functools.partial, lambda h: h),
    "partial of it": (lambda f: functools.partial(call, f), lambda h: h),
    "keyword of a partial": (lambda f: functools.partial(lambda x, g: g(x), g=f), lambda h: h),
    "frozen dataclass": (Frozen, lambda h: h.f),
    "frozen dataclass in a closure": (lambda f: in_a_closure(Frozen(f), lambda h: h.f), lambda h: h),
    "tuple in a closure": (lambda f: in_a_closure((f,), lambda h: h[0]), lambda h: h),
    "method of it": (lambda f: types.MethodType(call, f), lambda h: h),
    "tuple in metadata": (lambda f: liftnn.Variable(jnp.zeros(()), f=(f,)), lambda h: h.f[0]),
    "value of a Variable": (liftnn.Variable, lambda h: h.value),
    "dict in a Variable": (lambda f: liftnn.Variable({"f": f, "x": jnp.ones(2)}), lambda h: h.value["f"]),
    "grad": (liftnn.value_and_grad, lambda h: lambda x: h(x)[0]),
    "vmap": (liftnn.vmap, lambda h: lambda x: h(x * jnp.ones(1))[0]),
}


def a_number_in_a_cell():
    rate = 2.0

    def f(x):
        return x * rate

    def change():
        nonlocal rate
        rate = 5.0

    return f, change


def a_function_in_a_cell():
    def f(x):
        return g(x)

    def change():
        nonlocal g
        g = lambda x: x * 7.0  # noqa: E731

    g = lambda x: x * 3.0  # noqa: E731
    return f, change


def a_list_in_a_cell():
    rates = [2.0]

    def change():
        rates[0] = 5.0

    return lambda x: x * rates[0], change


def an_attribute():
    def f(x):
        return x * f.rate

    def change():
        f.rate = 5.0

    f.rate = 2.0
    return f, change


def a_keyword_default():
    def f(x, *, rate=2.0):
        return x * rate

    def change():
        f.__kwdefaults__["rate"] = 5.0

    return f, change


def a_global_module():
    global SCALE
    SCALE = scale_of(2.0)

    def change():
        global SCALE
        SCALE = scale_of(7.0)

    return by_the_global, change


def an_attribute_of_a_module():
    scale = scale_of(1.0)
    scale.number = 2

    def change():
        scale.number = 5

    return lambda x: x * scale.number, change


def scale_of(value):
    scale = liftnn.Module()
    scale.w = liftnn.Param(jnp.asarray(value))
    return scale


SCALE = scale_of(1.0)


def by_the_global(x):
    return x * SCALE.w


CHANGES = [
    a_number_in_a_cell,
    a_function_in_a_cell,
    a_list_in_a_cell,
    an_attribute,
    a_keyword_default,
    a_global_module,
    an_attribute_of_a_module,
]


class Holder(liftnn.Module):
    def __init__(self, held, get):
        self.w = liftnn.Param(jnp.asarray(3.0))
        self.held = held
        self.get = get

    def __call__(self, x):
        return self.get(self.held)(x) * self.w


def by_scan(run):
    body = lambda model, x: (model, run(model, x))  # noqa: E731
    return lambda model, x: liftnn.scan(body)(model, x * jnp.ones(1))[1][0]


CALLS = {
    "passed to jit": lambda model: functools.partial(liftnn.jit(lambda model, x: model(x)), model),
    "captured by jit": lambda model: liftnn.jit(lambda x: model(x)),
    "scan": lambda model: functools.partial(by_scan(lambda model, x: model(x)), model),
}


@pytest.mark.parametrize("way", CALLS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.sample(4)
def test_a_change_of_what_a_held_function_refers_to_is_seen(holder, change, way):
    hold, get = HOLDERS[holder]
    f, apply = change()
    model = Holder(hold(f), get)
    run = CALLS[way](model)
    for _ in range(3):
        assert float(run(2.0)) == float(f(2.0) * 3.0)
    apply()
    for _ in range(2):
        assert float(run(2.0)) == float(f(2.0) * 3.0)


@pytest.mark.parametrize("way", CALLS)
@pytest.mark.parametrize(
    "args", [(), ([],), (jnp.zeros(()),)], ids=["static", "with a list", "with an array"]
)
def test_a_partial_that_is_changed_in_place_is_seen(args, way):
    model = Holder(functools.partial(lambda *x, k=1.0: x[-1] * k, *args), lambda h: h)
    run = CALLS[way](model)
    for k in (None, 5.0, 7.0):
        if k is not None:
            model.held.keywords["k"] = k
        for _ in range(2):
            assert float(run(2.0)) == (k or 1.0) * 6.0


@pytest.mark.parametrize("way", CALLS)
def test_an_attribute_that_a_partial_gets_is_seen(way):
    model = Holder(functools.partial(lambda x: x), lambda h: lambda x: h(x) * getattr(h, "gain", 1.0))
    run = CALLS[way](model)
    assert [float(run(2.0)) for _ in range(2)] == [6.0, 6.0]
    for gain in (5.0, 7.0):
        model.held.gain = gain
        assert [float(run(2.0)) for _ in range(2)] == [gain * 6.0, gain * 6.0]


@pytest.mark.filterwarnings("ignore::liftnn.RetraceWarning")
def test_another_function_in_the_value_of_a_variable_captures_its_own_module():
    first, second = scale_of(1.0), scale_of(1.0)
    first.number, second.number = 2, 3
    held = [lambda x: x * first.number, lambda x: x * second.number, 3.0 * jnp.ones(())]
    variable = liftnn.Variable(held[2])
    call = liftnn.jit(lambda v, x: v.value(x) if callable(v.value) else v.value * x)
    assert float(call(variable, 2.0)) == 6.0
    for number in (5, 7):
        for scale, f in ((first, held[0]), (second, held[1]), (first, held[0])):
            scale.number, variable.value = number, f
            assert [float(call(variable, 2.0)) for _ in range(2)] == [2.0 * number] * 2
            scale.number += 4
            assert float(call(variable, 2.0)) == 2.0 * number + 8.0
