"""What JAX refuses on functions of arrays, liftnn refuses with an error of the same built-in class.

The oracle is JAX: each call is made with `jax` and with `liftnn`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.raising import caught

X = jnp.ones(3)
Y = jnp.ones(2)
ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
LOOPS = ("cond", "switch", "map", "associative_scan", "scan")
BUILTIN = (TypeError, ValueError, RuntimeError)


class Of:
    """The transforms of JAX, with those of `jax.lax` beside them."""

    def __getattr__(self, name):
        return getattr(jax.lax if name in LOOPS else jax, name)

    def scan(self, f, length=None):
        """The scan of JAX in liftnn's form."""
        return lambda carry, xs: jax.lax.scan(f, carry, xs, length)


def call_twice(jitted, x):
    jitted(x)
    jitted(x)


CASES = {
    "grad: an integer": lambda of: of.grad(jnp.sin)(1),
    "grad: not a scalar": lambda of: of.grad(jnp.sin)(X),
    "grad: a pair": lambda of: of.grad(lambda x: (x, x))(1.0),
    "grad: no auxiliary output": lambda of: of.grad(jnp.sin, has_aux=True)(1.0),
    "grad: too few arguments": lambda of: of.grad(jnp.add, argnums=2)(1.0, 2.0),
    "grad: passed by keyword": lambda of: of.grad(lambda x: x)(x=1.0),
    "jacfwd: an integer": lambda of: of.jacfwd(jnp.sin)(1),
    "jacrev: an integer": lambda of: of.jacrev(jnp.sin)(1),
    "jvp: a shape": lambda of: of.jvp(jnp.sin, (X,), (Y,)),
    "jvp: not a tuple": lambda of: of.jvp(jnp.sin, 1.0, (1.0,)),
    "vjp: a shape": lambda of: of.vjp(jnp.sin, X)[1](Y),
    "vjp: a structure": lambda of: of.vjp(jnp.sin, X)[1]((X,)),
    "vjp: a dtype": lambda of: of.vjp(jnp.sin, X)[1](np.ones(3, np.float16)),
    "vjp: no cotangent": lambda of: of.vjp(jnp.sin, X)[1](),
    "vmap: sizes": lambda of: of.vmap(lambda x, y: x)(X, Y),
    "vmap: nothing to map": lambda of: of.vmap(jnp.sin, in_axes=None)(X),
    "vmap: no arguments": lambda of: of.vmap(lambda: 1.0)(),
    "vmap: a rank": lambda of: of.vmap(jnp.sin, in_axes=1)(X),
    "vmap: no prefix of the arguments": lambda of: of.vmap(jnp.sin, in_axes=(0, 0))(X),
    "vmap: no prefix of the output": lambda of: of.vmap(jnp.sin, out_axes=(0, 0))(X),
    "vmap: a mapped output": lambda of: of.vmap(jnp.sin, out_axes=None)(X),
    "vmap: the rank of the output": lambda of: of.vmap(jnp.sin, out_axes=3)(X),
    "vmap: axis_size": lambda of: of.vmap(jnp.sin, axis_size=4)(X),
    "vmap: a traced axis_size": lambda of: of.jit(lambda n: of.vmap(jnp.sin, axis_size=n)(X))(3),
    "vmap: a dict": lambda of: of.vmap(lambda x: x["x"], in_axes={"x": 0}),
    "vmap: a text": lambda of: of.vmap(jnp.sin, in_axes="x"),
    "pmap: too few devices": lambda of: of.pmap(jnp.sin)(jnp.ones(99)),
    "pmap: sizes": lambda of: of.pmap(lambda x, y: x)(X, Y),
    "pmap: a number": lambda of: of.pmap(jnp.sin)(1.0),
    "jit: a donated buffer": lambda of: call_twice(of.jit(lambda x: x + 1, donate_argnums=0), jnp.ones(3)),
    "jit: no prefix of the arguments": lambda of: of.jit(jnp.sin, in_shardings=(ONE, ONE))(X),
    "jit: no prefix of the output": lambda of: of.jit(jnp.sin, out_shardings=(ONE, ONE))(X),
    "checkpoint: a static position": lambda of: of.checkpoint(jnp.sin, static_argnums=3)(X),
    "switch: no branches": lambda of: of.switch(0, []),
    "cond: not a scalar": lambda of: of.cond(X, jnp.sin, jnp.cos, X),
    "cond: None": lambda of: of.cond(None, jnp.sin, jnp.cos, X),
    "map: sizes": lambda of: of.map(lambda pair: pair[0], (X, Y)),
    "map: a number": lambda of: of.map(jnp.sin, 1.0),
    "scan: sizes": lambda of: of.scan(lambda c, x: (c, x))(0.0, (X, Y)),
    "scan: length": lambda of: of.scan(lambda c, x: (c, x), length=4)(0.0, X),
    "scan: a traced length": lambda of: of.jit(lambda n: of.scan(lambda c, x: (c, x), length=n)(0.0, ()))(3),
    "associative_scan: an axis": lambda of: of.associative_scan(jnp.add, X, axis=2),
    "associative_scan: a traced axis": lambda of: of.jit(lambda n: of.associative_scan(jnp.add, X, axis=n))(
        0
    ),
    "associative_scan: sizes": lambda of: of.associative_scan(lambda x, y: x, (X, Y)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_is_of_the_builtin_class_of_jax(name):
    theirs, ours = caught(CASES[name], Of()), caught(CASES[name], liftnn)
    assert isinstance(ours, next(cls for cls in BUILTIN if isinstance(theirs, cls)))
