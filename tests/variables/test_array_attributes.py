"""What type checkers know of a Variable is what an array has."""

import jax
import jax.numpy as jnp

import liftnn
from liftnn._src.variables.array_attributes import ArrayAttributes


def test_every_attribute_of_an_array_is_declared():
    public = {name for name in dir(jax.Array) if not name.startswith("_")}
    assert public - ArrayAttributes.__annotations__.keys() == {
        "at",
        "copy",
        "flat",
    }  # a Variable's own; not implemented


def test_every_attribute_that_is_declared_is_one_of_an_array():
    x = jnp.ones((2, 2))
    variable = liftnn.Variable(x)
    names = ArrayAttributes.__annotations__
    assert [name for name in names if not hasattr(x, name) or not hasattr(variable, name)] == []


def test_a_subscripted_variable_type_is_the_type():
    assert liftnn.Param[jax.Array] is liftnn.Param
    assert liftnn.Param[jax.Array](jnp.ones(2)).get_metadata() == {}
