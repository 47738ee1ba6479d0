"""The same programs of arrays with JAX's transforms and with liftnn's, written once: every line serves both."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify

import liftnn

MESH = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))

_SAME = (
    *(
        "jit",
        "grad",
        "value_and_grad",
        "vjp",
        "fwd_and_bwd",
        "jvp",
        "linearize",
        "jacfwd",
        "jacrev",
        "hessian",
        "custom_vjp",
    ),
    *("custom_jvp", "vmap", "pmap", "shard_map", "remat", "make_jaxpr", "eval_shape"),
)
_IN_LAX = ("map", "associative_scan", "cond", "switch", "while_loop", "fori_loop")

JAX = types.SimpleNamespace(
    **{name: getattr(jax, name) for name in _SAME},
    **{name: getattr(jax.lax, name) for name in _IN_LAX},
    scan=lambda f: functools.partial(jax.lax.scan, f),
    checkify=checkify.checkify,
    export=jax.export.export,
)
LIFTNN = types.SimpleNamespace(
    **{name: getattr(liftnn, name) for name in (*_SAME, *_IN_LAX, "scan", "checkify", "export")}
)


def double(x):
    return x * 2


def total(x):
    return (x * jnp.sin(x)).sum()


def step(c, x):
    return c + x, c * 2


def programs(of: Any) -> dict[str, Callable[[Any], Any]]:
    """Functions of an array of shape (4,), one for each transform.

    Args:
      of: `JAX` or `LIFTNN`.
    """
    ruled = of.custom_vjp(lambda x: x * 2)
    ruled.defvjp(
        lambda x: (x * 2, x),
        lambda saved, g: (saved * g,),
    )
    pushed = of.custom_jvp(lambda x: x * 2)
    pushed.defjvp(lambda primals, tangents: (primals[0] * 2, tangents[0] * 3))
    return {
        "jit": lambda x: of.jit(double)(x),
        "donating jit": lambda x: of.jit(double, donate_argnums=0)(x),
        "nested jit": lambda x: of.jit(lambda y: of.jit(double)(y) + 1)(x),
        "grad": lambda x: of.grad(total)(x),
        "value_and_grad": lambda x: of.value_and_grad(total)(x),
        "vjp": lambda x: of.vjp(total, x)[1](1.0),
        "fwd_and_bwd": lambda x: (lambda fwd, bwd: bwd(fwd(x)[1], 1.0))(*of.fwd_and_bwd(total, 0)),
        "jvp": lambda x: of.jvp(total, (x,), (x,)),
        "linearize": lambda x: of.linearize(total, x)[1](x),
        "jacfwd": lambda x: of.jacfwd(jnp.sin)(x),
        "jacrev": lambda x: of.jacrev(jnp.sin)(x),
        "hessian": lambda x: of.hessian(total)(x),
        "custom_vjp": lambda x: ruled(x),
        "custom_vjp, differentiated": lambda x: of.grad(lambda y: ruled(y).sum())(x),
        "custom_jvp": lambda x: pushed(x),
        "custom_jvp, differentiated": lambda x: of.jvp(pushed, (x,), (x,)),
        "vmap": lambda x: of.vmap(double)(x),
        "pmap": lambda x: of.pmap(double)(x),
        "map": lambda x: of.map(double, x),
        "shard_map": lambda x: of.shard_map(double, mesh=MESH, in_specs=jax.P("x"), out_specs=jax.P("x"))(x),
        "associative_scan": lambda x: of.associative_scan(jnp.add, x),
        "cond": lambda x: of.cond(x[0] > 0, jnp.sin, double, x),
        "switch": lambda x: of.switch(1, [double, jnp.cos], x),
        "scan": lambda x: of.scan(step)(0.0, x),
        "while_loop": lambda x: of.while_loop(lambda c: c[0] < 3, lambda c: c + 1, x),
        "fori_loop": lambda x: of.fori_loop(0, 3, lambda i, c: c * i, x),
        "remat": lambda x: of.remat(double)(x),
        "remat, differentiated": lambda x: of.grad(of.remat(total))(x),
        "checkify": lambda x: of.checkify(double)(x)[1],
        "export": lambda x: of.export(of.jit(double))(x).call(x),
        "make_jaxpr": lambda x: of.make_jaxpr(double)(x) and x * 3,
        "eval_shape": lambda x: of.eval_shape(double, x) and x * 3,
    }
