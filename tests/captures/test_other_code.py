"""Another function takes the place of one that leads to a captured module: the next call runs its code."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest

import liftnn
from tests.same import assert_same


class Scale(liftnn.Module):
    def __init__(self, w):
        self.w = liftnn.Param(jnp.float32(w))

    def once(self, x):
        return self.w * x

    def twice(self, x):
        return self.w * x * 2


class Owner:
    def __init__(self, model):
        self.model = model

    def once(self, x):
        return self.model.w * x

    def twice(self, x):
        return self.model.w * x * 2


def once(model, x):
    return model.w * x


def twice(model, x):
    return model.w * x * 2


PAIRS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "lambda": lambda m: (lambda x: m.w * x, lambda x: m.w * x * 2),
    "method of a module": lambda m: (m.once, m.twice),
    "method of an object": lambda m: (Owner(m).once, Owner(m).twice),
    "partial": lambda m: (functools.partial(once, m), functools.partial(twice, m)),
    "partial by keyword": lambda m: (
        functools.partial(lambda x, model: model.w * x, model=m),
        functools.partial(lambda x, model: model.w * x * 2, model=m),
    ),
    "partial of a partial": lambda m: (
        functools.partial(functools.partial(once), m),
        functools.partial(functools.partial(twice), m),
    ),
    "partial of a compiled function": lambda m: (
        functools.partial(liftnn.jit(once), m),
        functools.partial(liftnn.jit(twice), m),
    ),
    "compiled function": lambda m: (liftnn.jit(lambda x: m.w * x), liftnn.jit(lambda x: m.w * x * 2)),
    "compiled method": lambda m: (liftnn.jit(m.once), liftnn.jit(m.twice)),
    "compiled partial": lambda m: (
        liftnn.jit(functools.partial(once, m)),
        liftnn.jit(functools.partial(twice, m)),
    ),
    "method under remat": lambda m: (liftnn.remat(m.once), liftnn.remat(m.twice)),
    "another module": lambda m: (functools.partial(once, m), functools.partial(once, Scale(7))),
}
"""Two functions, of which the second takes the place of the first."""


@pytest.mark.filterwarnings("ignore::liftnn.StructureWarning")  # an object with a module, in a module
@pytest.mark.parametrize("place", ["attribute", "cell", "list", "module"])
@pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)
def test_the_next_call_runs_the_other_code(make, place):
    def replay(transform):
        first, second = make(Scale(3))
        box, cell, elements, model = types.SimpleNamespace(f=first), first, [first], Scale(1)
        functions = {
            "attribute": lambda _, x: box.f(x),
            "cell": lambda _, x: cell(x),
            "list": lambda _, x: elements[0](x),
            "module": lambda model, x: model.f(x),
        }
        f = transform(functions[place])
        found = []
        for function in (first, second, first):
            box.f = cell = elements[0] = function
            if place == "module":
                model.f = function
            found += [f(model, jnp.ones(2)) for _ in range(3)]
        return found

    assert_same(replay(liftnn.jit), replay(lambda f: f))


@pytest.mark.parametrize("attribute", ["__kwdefaults__", "__defaults__"])
def test_defaults_that_are_replaced_are_seen(attribute):
    def replay(transform):
        models = [Scale(3), Scale(5)]

        def g(x, model=models[0], *, other=models[0]):
            return model.w * x + other.w

        f = transform(lambda x: g(x))
        found = []
        for model in (*models, *models):
            setattr(g, attribute, {"other": model} if attribute == "__kwdefaults__" else (model,))
            found += [f(jnp.ones(2)) for _ in range(3)]
        return found

    assert_same(replay(liftnn.jit), replay(lambda f: f))


class Decorator:
    """A decorator in the form of a class: `functools.update_wrapper` sets `__wrapped__`, and copies attributes."""

    def __init__(self, f, model):
        functools.update_wrapper(self, f)
        self.f = f
        self.model = model

    def __call__(self, x):
        return self.f(x) * self.model.w


class Wrapper:
    def __init__(self, f, model):
        self.__wrapped__ = f

    def __call__(self, x):
        return self.__wrapped__(x)


class DoublingWrapper(Wrapper):
    def __call__(self, x):
        return self.__wrapped__(x) * 2


WRAPPED: dict[str, Callable[[Any], Callable[[Any], Any]]] = {
    "function of a library": lambda m: jnp.abs,
    "lambda": lambda m: lambda x: m.w * x,
    "method": lambda m: m.once,
    "partial": lambda m: functools.partial(once, m),
}
WRAPPER_CHANGES: dict[str, Callable[[Any, Any, Any], None]] = {
    "value": lambda wrapper, m, n: setattr(m.w, "value", m.w + 1),
    "model": lambda wrapper, m, n: setattr(wrapper, "model", n),
    "function": lambda wrapper, m, n: vars(wrapper).update(f=n.once, __wrapped__=n.once),
    "code of the function": lambda wrapper, m, n: vars(wrapper).update(f=m.twice, __wrapped__=m.twice),
    "class": lambda wrapper, m, n: setattr(
        wrapper, "__class__", DoublingWrapper if type(wrapper) is Wrapper else type(wrapper)
    ),
}


@pytest.mark.parametrize("change", WRAPPER_CHANGES.values(), ids=WRAPPER_CHANGES)
@pytest.mark.parametrize("wrap", [Decorator, Wrapper])
@pytest.mark.parametrize("function", WRAPPED.values(), ids=WRAPPED)
def test_what_a_decorator_holds_is_read_again(function, wrap, change):
    def replay(transform):
        m, n = Scale(3), Scale(5)
        wrapper = wrap(function(m), m)
        f = transform(lambda x: wrapper(x))
        found = [f(jnp.ones(2)) for _ in range(3)]
        change(wrapper, m, n)
        return [*found, *[f(jnp.ones(2)) for _ in range(3)]]

    if function is WRAPPED["function of a library"] and wrap is Wrapper:
        return  # it leads to no module, so its code is a constant
    assert_same(replay(liftnn.jit), replay(lambda f: f))
