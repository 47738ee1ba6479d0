"""No memory is kept alive: when a call is over, what its function captured is freed where JAX alone would free it.

Python frees an object at once unless it is part of a reference cycle, which waits for the garbage collector. Arrays are
large, and the collector does not see their size. So a transform must leave no cycle that reaches the user's function.
"""

from __future__ import annotations

import gc
import importlib.util
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import checkify

import liftnn
from tests.quick import quick
from tests.transform_table import DEVICE, TRANSFORMS
from tests.user_modules import Affine


class Lax:
    """JAX's functions in one place, with liftnn's signatures."""

    def __getattr__(self, name):
        return getattr(jax if hasattr(jax, name) else jax.lax, name)

    @staticmethod
    def checkify(f):
        return checkify.checkify(f)

    @staticmethod
    def scan(f):
        return lambda carry, xs: jax.lax.scan(f, carry, xs)

    @staticmethod
    def export(f):
        return jax.export.export(f)


def total(f: Any) -> Any:
    return lambda x: f(x).sum()


def custom_vjp(lib: Any, f: Any, x: Any) -> None:
    with_rule = lib.custom_vjp(f)
    with_rule.defvjp(lambda x: (f(x), None), lambda _, ct: (ct,))
    lib.grad(lambda x: with_rule(x).sum())(x)


def custom_jvp(lib: Any, f: Any, x: Any) -> None:
    with_rule = lib.custom_jvp(f)
    with_rule.defjvp(lambda primals, tangents: (f(*primals), f(*tangents)))
    lib.jvp(with_rule, (x,), (x,))


def linearize(lib: Any, f: Any, x: Any) -> None:
    lib.linearize(f, x)[1](x)


def vjp(lib: Any, f: Any, x: Any) -> None:
    lib.vjp(f, x)[1](x)


def fwd_and_bwd(lib: Any, f: Any, x: Any) -> None:
    fwd, bwd = lib.fwd_and_bwd(f, 0)
    bwd(fwd(x)[1], x)


def shard_map(lib: Any, f: Any, x: Any) -> None:
    lib.shard_map(f, mesh=DEVICE, in_specs=jax.P(), out_specs=jax.P())(x)


def export(lib: Any, f: Any, x: Any) -> None:
    if importlib.util.find_spec("flatbuffers"):
        lib.export(lib.jit(f))(x).serialize()
    lib.export(lib.jit(f))(x).call(x)


USES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "jit": lambda lib, f, x: lib.jit(f)(x),
    "donating jit": lambda lib, f, x: lib.jit(f, donate_argnums=0)(x + 0),
    "grad": lambda lib, f, x: lib.grad(total(f))(x),
    "value_and_grad": lambda lib, f, x: lib.value_and_grad(total(f))(x),
    "vjp": vjp,
    "fwd_and_bwd": fwd_and_bwd,
    "jvp": lambda lib, f, x: lib.jvp(f, (x,), (x,)),
    "linearize": linearize,
    "jacfwd": lambda lib, f, x: lib.jacfwd(f)(x),
    "jacrev": lambda lib, f, x: lib.jacrev(f)(x),
    "hessian": lambda lib, f, x: lib.hessian(total(f))(x),
    "custom_vjp": custom_vjp,
    "custom_jvp": custom_jvp,
    "vmap": lambda lib, f, x: lib.vmap(f)(x[None]),
    "pmap": lambda lib, f, x: lib.pmap(f)(x[None]),
    "map": lambda lib, f, x: lib.map(f, x[None]),
    "shard_map": shard_map,
    "cond": lambda lib, f, x: lib.cond(True, f, f, x),
    "switch": lambda lib, f, x: lib.switch(0, [f, f], x),
    "scan": lambda lib, f, x: lib.scan(lambda c, y: (f(c), f(y)))(x, x[None]),
    "fori_loop": lambda lib, f, x: lib.fori_loop(0, 3, lambda i, c: f(c), x),
    "while_loop": lambda lib, f, x: lib.while_loop(lambda c: f(c).sum() < 0, f, x),
    "associative_scan": lambda lib, f, x: lib.associative_scan(lambda a, b: f(a) + b, x),
    "remat": lambda lib, f, x: lib.grad(lib.checkpoint(total(f)))(x),
    "checkify": lambda lib, f, x: lib.checkify(f)(x),
    "export": export,
    "make_jaxpr": lambda lib, f, x: lib.make_jaxpr(f)(x),
    "eval_shape": lambda lib, f, x: lib.eval_shape(f, x),
    "grad of checkpoint of scan": lambda lib, f, x: lib.grad(
        lib.checkpoint(lambda x: lib.scan(lambda c, y: (f(c), f(y)))(x, x[None])[0].sum())
    )(x),
    "jit of grad of vmap": lambda lib, f, x: lib.jit(lib.grad(lambda x: lib.vmap(f)(x[None]).sum()))(x),
}
"""A use of each transform with a function of an array."""


def of_array() -> tuple[Any, Any]:
    """A function that captures an array, directly and through a helper; and the array."""
    array = jnp.zeros(1) + 1
    held = [array]

    def helper(x: Any) -> Any:
        return x * array

    return lambda x: helper(x) + held[0], array


def of_jitted() -> tuple[Any, Any]:
    """A jitted function that captures an array, and the array."""
    f, array = of_array()
    return jax.jit(f, inline=True), array


def of_module() -> tuple[Any, Any]:
    """A function that captures a module, directly and through a helper; and the module."""
    module = Affine(2.0, 1)

    def helper(x: Any) -> Any:
        return x * module.w

    return lambda x: helper(x) + module.w, module


def is_freed(lib: Any, name: str, make: Callable[[], tuple[Any, Any]]) -> bool:
    """Use a transform; return whether what its function captures is freed without the garbage collector."""
    x = jnp.arange(3.0)
    gc.collect()
    gc.disable()
    try:
        f, captured = make()
        alive = weakref.ref(captured)
        del captured
        for _ in range(2):
            USES[name](lib, f, x)
        del f
        return alive() is None
    finally:
        gc.enable()


def test_each_transform_has_a_use():
    assert TRANSFORMS.keys() - USES.keys() == {"lift"}  # the one that JAX does not have


@pytest.mark.filterwarnings("ignore:.*donated buffers were not usable")
@pytest.mark.parametrize("make", quick([of_array, of_module]))
@pytest.mark.parametrize("name", USES)
@pytest.mark.sample(12)
def test_what_a_function_captures_is_freed_as_in_jax(name, make):
    if is_freed(Lax(), name, of_array):
        assert is_freed(liftnn, name, make)


def custom_vjp_of_module(f: Any) -> Any:
    with_rule = liftnn.custom_vjp(lambda model, x: f(model, x).sum())
    with_rule.defvjp(lambda model, x: (f(model, x).sum(), x), lambda x, ct: (None, ct * x))
    return liftnn.grad(with_rule, argnums=1)


def custom_jvp_of_module(f: Any) -> Any:
    with_rule = liftnn.custom_jvp(f)
    with_rule.defjvp(lambda primals, tangents: (f(*primals), tangents[1]))
    return lambda model, x: liftnn.jvp(with_rule, (model, x), (None, x))


WITH_MODULE = TRANSFORMS | {"custom_vjp": custom_vjp_of_module, "custom_jvp": custom_jvp_of_module}
"""The table's own rules call the function that holds them, which is a cycle in JAX too."""


@pytest.mark.filterwarnings("ignore:.*donated buffers were not usable")
@pytest.mark.parametrize("name", WITH_MODULE)
@pytest.mark.sample(8)
def test_what_a_call_with_a_module_takes_and_captures_is_freed(name):
    alive = []

    def call():
        model, captured, array = Affine(2.0), Affine(3.0), jnp.zeros(3) + 1
        model.first = Affine(1.0, (3, 3))
        alive.extend(map(weakref.ref, (model, captured, array)))

        def f(model, x):
            return model.w.sum() * x + captured.w * array

        transformed = WITH_MODULE[name](f)
        for _ in range(3):
            transformed(model, jnp.arange(3.0))

    gc.collect()
    gc.disable()
    try:
        call()
        freed = [r() is None for r in alive]
    finally:
        gc.enable()
    if (
        not all(freed) and name in USES and not is_freed(Lax(), name, of_jitted)
    ):  # liftnn jits branches and bodies
        pytest.skip("this version of JAX keeps what a jitted function captures")
    assert freed == [True, True, True]


WRAPPERS = [
    "jit",
    "grad",
    "value_and_grad",
    "jacfwd",
    "jacrev",
    "hessian",
    "custom_vjp",
    "custom_jvp",
    "vmap",
    "pmap",
    "checkpoint",
    "make_jaxpr",
]


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.sample(3)
def test_a_wrapper_that_is_dropped_frees_its_function(name):
    gc.collect()
    gc.disable()
    try:

        def f(x):
            return x

        alive, wrapper = weakref.ref(f), getattr(liftnn, name)(f)
        del f, wrapper
        assert alive() is None
    finally:
        gc.enable()
