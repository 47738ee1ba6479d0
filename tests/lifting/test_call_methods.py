"""A module whose `__call__` is not a plain function is transformed as it is called."""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.same import assert_same

X = jnp.arange(1.0, 4.0)


class Weighted(liftnn.Module):
    def __init__(self):
        self.w = liftnn.Param(jnp.array(2.0))


class Dispatched(Weighted):
    """A method for each type of the argument."""

    @functools.singledispatchmethod
    def __call__(self, x):
        return self.w * x

    @__call__.register
    def _(self, x: tuple):
        return self.w * sum(x)


class Static(Weighted):
    @staticmethod
    def __call__(x):
        return 3.0 * x if not isinstance(x, tuple) else sum(x)


class OfClass(Weighted):
    @classmethod
    def __call__(cls, x):
        return cls.scale(x)

    @staticmethod
    def scale(x):
        return 3.0 * x if not isinstance(x, tuple) else sum(x)


class Partial(Weighted):
    def call(self, factor, x):
        return self.w * factor * (x if not isinstance(x, tuple) else sum(x))

    __call__ = functools.partialmethod(call, 5.0)


class Callable:
    """An object that does not bind."""

    def __call__(self, x):
        return 4.0 * (x if not isinstance(x, tuple) else sum(x))


class Unbound(Weighted):
    __call__ = Callable()


class Compiled(Weighted):
    @liftnn.jit
    def __call__(self, x):
        return self.w * (x if not isinstance(x, tuple) else sum(x))


class OfJax(Weighted):
    @functools.partial(jax.named_call, name="call")
    def __call__(self, x):
        return self.w * (x if not isinstance(x, tuple) else sum(x))


class Chosen(Weighted):
    """A method that is chosen by the object."""

    @property
    def __call__(self):
        return lambda x: self.w * (x if not isinstance(x, tuple) else sum(x))


CLASSES = [Dispatched, Static, OfClass, Partial, Unbound, Compiled, OfJax, Chosen]
TRANSFORMS = {
    "jit": liftnn.jit,
    "donating": lambda f: liftnn.jit(f, donate_argnums=()),
    "remat": liftnn.remat,
    "checkify": lambda f: lambda x: liftnn.checkify(f)(x)[1],
    "vmap": lambda f: liftnn.vmap(f),
    "map": lambda f: lambda x: liftnn.map(f, x),
    "cond": lambda f: lambda x: liftnn.cond(True, f, f, x),
    "switch": lambda f: lambda x: liftnn.switch(1, [f, f], x),
    "jvp": lambda f: lambda x: liftnn.jvp(f, (x,), (jax.tree.map(jnp.zeros_like, x),))[0],
    "vjp": lambda f: lambda x: liftnn.vjp(f, x)[0],
    "make_jaxpr": lambda f: lambda x: (liftnn.make_jaxpr(f)(x), f(x))[1],
    "partial": lambda f: liftnn.jit(functools.partial(f)),
}


@pytest.mark.parametrize("argument", [X, (X, X, X)], ids=["array", "tuple"])
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("cls", CLASSES)
def test_a_transformed_module_gives_what_its_call_gives(cls, transform, argument):
    model = cls()
    assert_same(transform(model)(argument), model(argument))
    model.w.value = jnp.array(7.0)
    assert_same(transform(model)(argument), model(argument))


@pytest.mark.parametrize("cls", CLASSES)
def test_a_stack_of_such_modules_is_applied_in_turn(cls):
    stack = liftnn.Stack(3, cls)
    expected = X
    for _ in range(3):
        expected = cls()(expected)
    assert_same(stack(X), expected)


# --- dataclasses are callables like other objects


@dataclasses.dataclass
class Scaled:
    """Calls what it holds, a module or a number."""

    inner: Any
    factor: float = 2.0

    def __call__(self, x):
        x = x if not isinstance(x, tuple) else sum(x)
        return self.factor * (self.inner(x) if callable(self.inner) else self.inner * x)


@dataclasses.dataclass(frozen=True)
class FrozenScaled:
    inner: Any
    factor: float = 2.0
    __call__ = Scaled.__call__


@dataclasses.dataclass(slots=True)
class SlottedScaled:
    inner: Any
    factor: float = 2.0
    __call__ = Scaled.__call__


class NamedScaled(types.SimpleNamespace):
    factor = 2.0
    __call__ = Scaled.__call__


RECORDS = [Scaled, FrozenScaled, SlottedScaled, NamedScaled]


@pytest.mark.parametrize("argument", [X, (X, X, X)], ids=["array", "tuple"])
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("cls", RECORDS)
def test_a_transformed_dataclass_gives_what_its_call_gives(cls, transform, argument):
    call = cls(inner=Compiled())
    assert_same(transform(call)(argument), call(argument))


@pytest.mark.parametrize("cls", RECORDS)
def test_a_transformed_dataclass_of_numbers_gives_what_jax_gives(cls):
    call = cls(inner=3.0)
    assert_same(liftnn.jit(call)(X), jax.jit(lambda x: call(x))(X))
    assert_same(liftnn.grad(call)(2.0), jax.grad(call)(2.0))
    assert_same(liftnn.vmap(call)(X), jax.vmap(call)(X))


def test_another_module_of_a_jitted_dataclass_is_seen_and_its_variables_are_written():
    def count(module, x):
        module.w.value = module.w + 1
        return module.w * x

    call = Scaled(functools.partial(count, Weighted()))
    jitted = liftnn.jit(call)
    assert [float(jitted(1.0)) for _ in range(3)] == [6.0, 8.0, 10.0]
    call.inner = functools.partial(count, Weighted())
    assert [float(jitted(1.0)) for _ in range(3)] == [6.0, 8.0, 10.0]


def scale_by(x, model, y=0.0):
    model.w.value = 2 * model.w
    return jnp.sum(model.w * x) + y


PLACES = {
    "jit": lambda f, x: liftnn.jit(f)(x),
    "remat": lambda f, x: liftnn.remat(f)(x),
    "value_and_grad": lambda f, x: liftnn.value_and_grad(f)(x)[0],
    "jit in jit": lambda f, x: liftnn.jit(lambda x: liftnn.jit(f)(x))(x),
    "cond": lambda f, x: liftnn.cond(True, f, lambda x: 0.0, x),
    "partial": lambda f, x: liftnn.jit(functools.partial(f, y=1.0))(x) - 1.0,
    "keyword": lambda f, x: liftnn.jit(f)(x, y=1.0) - 1.0,
}


@pytest.mark.skipif(not hasattr(functools, "Placeholder"), reason="since Python 3.14")
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_partial_may_have_a_gap_before_the_module(place):
    model, expected = Weighted(), Weighted()
    gap = getattr(functools, "Placeholder", None)
    assert_same(place(functools.partial(scale_by, gap, model), X), scale_by(X, expected))
    assert_same(model, expected)
    assert_same(place(functools.partial(scale_by, gap, model), X), scale_by(X, expected))
    assert_same(model, expected)
