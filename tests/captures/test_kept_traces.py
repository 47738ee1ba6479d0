"""JAX keeps the trace of a function that captures a module and is given to a raw transform: a note says what to do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import liftnn

TEXT = (
    "If a function that captures a module was passed to a transform of JAX, such as jax.jit, jax.checkpoint or "
    "jax.lax.scan, JAX has kept its trace, with the arrays that the module had there. If the function has a rule of "
    "jax.custom_vjp or jax.custom_jvp, it cannot be differentiated by what it captures. Use the liftnn transform of "
    "the same name, or pass the arrays as arguments."
)


class Scale(liftnn.Module):
    def __init__(self):
        self.factor = liftnn.Param(jnp.float32(2.0))


def checkpoint(f):
    return jax.checkpoint(f)


def scan(f):
    def body(carry, x):
        return f(carry), x

    return lambda x: jax.lax.scan(body, x, jnp.zeros(1))[0]


def lifted_scan(f):
    def body(carry, x):
        return f(carry), x

    return lambda x: liftnn.scan(body)(x, jnp.zeros(1))[0]


RAW = {
    "jit": jax.jit,
    "checkpoint": checkpoint,
    "scan": scan,
    "cond": lambda f: lambda x: jax.lax.cond(x > 0, f, f, x),
    "while_loop": lambda f: lambda x: jax.lax.while_loop(lambda x: x < 1.5, f, x),
}
LIFTED = {
    "jit": liftnn.jit,
    "remat": liftnn.remat,
    "scan": lifted_scan,
    "cond": lambda f: lambda x: liftnn.cond(x > 0, f, f, x),
    "while_loop": lambda f: lambda x: liftnn.while_loop(lambda x: x < 1.5, f, x),
}


def notes(error):
    return getattr(error, "__notes__", [])


@pytest.mark.parametrize(
    "again", [lambda f: lambda x: f(x), lambda f: lambda x: 2 * f(x)], ids=["equal", "other"]
)
@pytest.mark.parametrize("transform", RAW.values(), ids=RAW)
def test_a_function_that_was_traced_in_another_call_is_explained(transform, again):
    scale = Scale()
    scaled = transform(lambda x: x * scale.factor)
    liftnn.jit(lambda x: scaled(x))(1.0)
    with pytest.raises(jax.errors.UnexpectedTracerError) as caught:
        liftnn.jit(again(scaled))(1.0)
    assert notes(caught.value).count(TEXT) == 1


@pytest.mark.parametrize("transform", RAW.values(), ids=RAW)
def test_so_is_one_that_was_traced_for_another_structure(transform):
    scale = Scale()
    scaled = transform(lambda x: x * scale.factor)
    call = liftnn.jit(lambda x: scaled(x))
    for _ in range(3):
        call(1.0)
    scale.mode = "eval"
    with pytest.raises(jax.errors.UnexpectedTracerError) as caught:
        call(1.0)
    assert notes(caught.value).count(TEXT) == 1


def by_vjp(library, f):
    function = library.custom_vjp(f)
    function.defvjp(lambda *args: (f(*args), args), lambda args, ct: (*[None] * (len(args) - 1), 5 * ct))
    return function


def by_jvp(library, f):
    function = library.custom_jvp(f)
    function.defjvp(lambda args, tangents: (f(*args), 5 * tangents[-1]))
    return function


@pytest.mark.parametrize("define", [by_vjp, by_jvp])
def test_so_is_a_rule_of_jax_whose_function_captures_what_is_differentiated(define):
    scale = Scale()
    scaled = define(jax, lambda x: x * scale.factor)
    with pytest.raises(jax.errors.UnexpectedTracerError) as caught:
        liftnn.grad(lambda scale, x: scaled(x))(scale, 1.0)
    assert notes(caught.value).count(TEXT) == 1
    with_arrays = define(jax, lambda factor, x: x * factor)
    assert float(liftnn.grad(lambda scale, x: with_arrays(scale.factor.value, x), argnums=1)(scale, 1.0)) == 5
    with_module = define(liftnn, lambda scale, x: x * scale.factor)
    assert float(liftnn.grad(with_module, argnums=1)(scale, 1.0)) == 5


@pytest.mark.parametrize("transform", LIFTED.values(), ids=LIFTED)
def test_a_lifted_transform_has_no_such_trace(transform):
    scale = Scale()
    scaled = transform(lambda x: x * scale.factor)
    call = liftnn.jit(lambda x: scaled(x))
    for factor in (2.0, 3.0):
        scale.factor.value = jnp.float32(factor)
        assert float(scaled(jnp.float32(1.0))) == factor
        assert float(call(1.0)) == factor
        assert float(liftnn.jit(lambda x: 2 * scaled(x))(1.0)) == 2 * factor
        scale.mode = factor


def test_an_array_that_leaked_from_a_function_without_modules_is_not_explained_so():
    kept = []
    jax.jit(lambda x: kept.append(x))(1.0)
    with pytest.raises(jax.errors.UnexpectedTracerError) as caught:
        liftnn.jit(lambda x: x * kept[0])(1.0)
    assert TEXT not in notes(caught.value)
