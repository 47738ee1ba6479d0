"""Derivatives number the arguments of a transformed bound method like those of the method: its module is argument 0."""

from __future__ import annotations

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import pytest
from tests.autodiff.test_jacobian import assert_close

import liftnn

T, X, W = 0.5, 0.7, 2.0


class Field(liftnn.Module):
    """A function of two coordinates, with a weight and a count of its calls."""

    def __init__(self):
        self.w = liftnn.Param(jnp.array(W))
        self.calls = liftnn.Variable(jnp.array(0))

    def u(self, t, x):
        self.calls += 1
        return jnp.sin(self.w * t) * x**3

    __call__ = u


def plain(w, t, x):
    return jnp.sin(w * t) * x**3


FORMS = {
    "method": lambda: Field().u,
    "module": Field,
    "jit of a method": lambda: liftnn.jit(Field().u),
    "jit of a module": lambda: liftnn.jit(Field()),
    "jit of jit": lambda: liftnn.jit(liftnn.jit(Field().u)),
    "remat": lambda: liftnn.remat(Field().u),
    "checkpoint of jit": lambda: liftnn.checkpoint(liftnn.jit(Field().u)),
}
"""What creates a method, or a transform of one."""


def value_of(x):
    return x["w"].value if isinstance(x, liftnn.State) else x


@pytest.mark.parametrize("argnums", [0, 1, 2, (0, 2), (2, 1)])
@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_a_gradient_is_that_of_the_method(make, argnums):
    found = liftnn.grad(make(), argnums=argnums)(T, X)
    expected = jax.grad(plain, argnums=argnums)(W, T, X)
    assert_close(jax.tree.map(value_of, found, is_leaf=lambda x: isinstance(x, liftnn.State)), expected)


@pytest.mark.parametrize("transform", ["jacfwd", "jacrev", "hessian"])
@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_a_jacobian_is_that_of_the_method(make, transform):
    found = getattr(liftnn, transform)(make(), argnums=2)(T, X)
    assert_close(found, getattr(jax, transform)(plain, argnums=2)(W, T, X))


@pytest.mark.parametrize("inner", [1, 2])
@pytest.mark.parametrize("outer", [0, 1, 2])
@pytest.mark.parametrize("between", ["nothing", "jit", "remat"])
@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_the_numbers_are_the_same_in_nested_derivatives(make, between, inner, outer):
    def wrap(f):
        return f if between == "nothing" else getattr(liftnn, between)(f)

    found = liftnn.grad(wrap(liftnn.grad(make(), argnums=inner)), argnums=outer)(T, X)
    assert_close(value_of(found), jax.grad(jax.grad(plain, argnums=inner), argnums=outer)(W, T, X))


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_vjp_jvp_and_linearize_take_the_module_as_the_first_argument(make):
    out, expected = plain(W, T, X), jax.grad(plain, argnums=(0, 1, 2))(W, T, X)
    value, pull = liftnn.vjp(make(), T, X)
    assert_close((value, *map(value_of, pull(jnp.float32(1)))), (out, *expected))
    value, push = liftnn.linearize(make(), T, X)
    assert_close((value, push({"w": 1.0}, 1.0, 1.0)), (out, sum(expected)))
    assert_close(push(1.0, 1.0), expected[1] + expected[2])
    assert_close(liftnn.jvp(make(), (T, X), ({"w": 1.0}, 1.0, 0.0)), (out, expected[0] + expected[1]))
    assert_close(liftnn.jvp(make(), (T, X), (1.0, 0.0)), (out, expected[1]))


@pytest.mark.parametrize("compiled", [False, True])
def test_what_the_method_writes_is_written_once(compiled):
    field = Field()
    second = liftnn.grad(liftnn.grad(liftnn.jit(field.u) if compiled else field.u, argnums=2), argnums=2)
    assert_close(second(T, X), 6 * X * jnp.sin(W * T))
    assert int(field.calls.value) == 1
    second(T, X)
    assert int(field.calls.value) == 2


def test_batch_axes_may_leave_the_module_out_after_a_derivative():
    class Quiet(Field):
        def u(self, t, x):
            return plain(self.w, t, x)

    ts, xs = jnp.arange(3.0), jnp.arange(3.0) + 1
    expected = 6 * xs * jnp.sin(W * ts)
    u_xx = liftnn.grad(liftnn.grad(Quiet().u, argnums=2), argnums=2)
    assert_close(liftnn.vmap(u_xx)(ts, xs), expected)
    assert_close(liftnn.vmap(u_xx, in_axes=(0, 0))(ts, xs), expected)
    assert_close(liftnn.jit(liftnn.vmap(u_xx))(ts, xs), expected)


def test_a_partial_and_a_function_count_the_arguments_of_the_call():
    field = Field()
    expected = jax.grad(plain, argnums=1)(W, T, X)
    assert_close(liftnn.grad(functools.partial(liftnn.jit(field.u)))(T, X), expected)
    assert_close(liftnn.grad(lambda t, x: field.u(t, x))(T, X), expected)
    assert_close(liftnn.grad(liftnn.jit(lambda t, x: field.u(t, x)))(T, X), expected)


@dataclasses.dataclass
class Settings:
    """A function of two coordinates, with a number."""

    w: float = W

    def u(self, t, x):
        return plain(self.w, t, x)


@dataclasses.dataclass(frozen=True)
class FrozenSettings:
    w: float = W

    def u(self, t, x):
        return plain(self.w, t, x)


class Namespace(types.SimpleNamespace):
    def u(self, t, x):
        return plain(self.w, t, x)


@dataclasses.dataclass
class Holder:
    """A function of two coordinates, with a module."""

    field: Field

    def u(self, t, x):
        return self.field.u(t, x)


OWNERS = {
    "dataclass": Settings,
    "frozen dataclass": FrozenSettings,
    "namespace": lambda: Namespace(w=W),
    "dataclass of an array": lambda: Settings(jnp.array(W)),
    "dataclass of a module": lambda: Holder(Field()),
}
"""What has a method and is not a module."""


@pytest.mark.parametrize("wrap", [lambda f: f, liftnn.jit, liftnn.remat], ids=["method", "jit", "remat"])
@pytest.mark.parametrize("make", OWNERS.values(), ids=OWNERS)
def test_a_method_of_a_dataclass_counts_as_in_jax(make, wrap):
    owner = make()
    f = wrap(owner.u)
    expected = jax.grad(plain, argnums=(1, 2))(W, T, X)
    assert_close(liftnn.grad(f)(T, X), expected[0])
    assert_close(liftnn.grad(f, argnums=(0, 1))(T, X), expected)
    assert_close(
        liftnn.jit(liftnn.grad(liftnn.grad(f), argnums=1))(T, X), jax.grad(jax.grad(plain, 1), 2)(W, T, X)
    )
    assert_close(liftnn.jacfwd(f, argnums=1)(T, X), expected[1])
    assert_close(liftnn.vjp(f, T, X)[1](jnp.float32(1)), expected)
    assert_close(liftnn.jvp(f, (T, X), (1.0, 0.0))[1], expected[0])
    assert_close(liftnn.linearize(f, T, X)[1](0.0, 1.0), expected[1])


@pytest.mark.parametrize("make", [Settings, lambda: Holder(Field())], ids=["number", "module"])
def test_a_dataclass_is_an_argument_of_a_function_of_its_class(make):
    owner = make()
    found = liftnn.grad(type(owner).u, argnums=2)(owner, T, X)
    assert_close(found, jax.grad(plain, argnums=2)(W, T, X))


def test_what_the_method_of_a_dataclass_writes_to_a_module_is_kept():
    holder = Holder(Field())
    liftnn.grad(holder.u)(T, X)
    liftnn.jit(liftnn.grad(liftnn.grad(holder.u)))(T, X)
    assert int(holder.field.calls.value) == 2
