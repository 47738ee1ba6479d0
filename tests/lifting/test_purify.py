"""Constants that a function writes are arrays after the call, as in the plain call."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import liftnn
from tests.user_modules import Holder

CONSTANTS = {
    "weak float": lambda: jnp.array(5.0),
    "float": lambda: jnp.float32(5),
    "int8": lambda: jnp.int8(5),
    "int": lambda: jnp.array(5),
    "bool": lambda: jnp.array(True),
    "complex": lambda: jnp.array(1j),
    "key": lambda: jax.random.key(0),
    "not a scalar": lambda: jnp.zeros(2),
}
TRANSFORMS = {
    "remat": liftnn.remat,
    "checkify": lambda f: lambda m: liftnn.checkify(f)(m)[1],
    "remat of remat": lambda f: liftnn.remat(liftnn.remat(f)),
    "grad of remat": lambda f: (
        lambda m: liftnn.grad(lambda x, m: (x, liftnn.remat(f)(m)), has_aux=True)(1.0, m)[1]
    ),
    "jit": liftnn.jit,
    "vjp": lambda f: lambda m: liftnn.vjp(f, m)[0],
    "switch": lambda f: lambda m: liftnn.switch(0, [f, f], m),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("constant", CONSTANTS)
def test_a_constant_that_a_function_writes_or_returns_is_an_array(constant, transform):
    make = CONSTANTS[constant]

    def write(m):
        m.attribute = make()
        m.items.append(make())
        m.entries["new"] = (make(), "static")
        m.value.value = make()
        m.tree.value = {"a": make(), "b": "static"}
        m.variable = liftnn.Param(make())
        return {"a": make()}

    def created():
        return Holder(items=[], entries={}, value=liftnn.Variable(0), tree=liftnn.Variable(None))

    plain, model = created(), created()
    expected, out = write(plain), TRANSFORMS[transform](write)(model)
    pairs = [
        (model.attribute, plain.attribute),
        (model.items[0], plain.items[0]),
        (model.entries["new"][0], plain.entries["new"][0]),
        (model.value.raw_value, plain.value.raw_value),
        (model.tree.raw_value["a"], plain.tree.raw_value["a"]),
        (model.variable.raw_value, plain.variable.raw_value),
        (out["a"], expected["a"]),
    ]
    for x, y in pairs:
        assert isinstance(x, jax.Array)
        assert jax.typeof(x) == jax.typeof(y)
        assert (x == y).all()
