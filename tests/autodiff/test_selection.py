"""`argnums` selects the arguments that it selects in JAX, whatever kind of integer and of sequence it is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.alike import find_difference
from tests.raising import caught

import liftnn

ARGNUMS = {
    "int": lambda: 1,
    "numpy int": lambda: np.int64(1),
    "array of rank 0": lambda: np.array(1),
    "jax array": lambda: jnp.array(1),
    "bool": lambda: True,
    "list": lambda: [1, 0],
    "numpy ints": lambda: (np.int32(1), np.int8(0)),
    "array": lambda: np.array([1, 0]),
    "range": lambda: range(2),
    "set": lambda: {1},
}
TRANSFORMS = ["grad", "value_and_grad", "jacfwd", "jacrev", "hessian"]


def f(x, y):
    return x * y**2


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("kind", ARGNUMS)
@pytest.mark.sample(6)
def test_argnums_of_any_integer_type_give_what_jax_gives(kind, transform):
    def call(of):
        return getattr(of, transform)(f, argnums=ARGNUMS[kind]())(2.0, 3.0)

    try:
        theirs = call(jax)
    except TypeError:
        pytest.skip("JAX 0.10.0 takes only ints in jacrev and hessian")
    assert find_difference(call(liftnn), theirs) is None


@pytest.mark.parametrize("kind", ARGNUMS)
def test_argnums_of_any_integer_type_select_the_same_arguments_of_a_call_with_modules(kind):
    def loss(x, y, module):
        return f(x, y) * module.scale

    module = type(
        "Scale", (liftnn.Module,), {"__init__": lambda self: setattr(self, "scale", liftnn.Param(1.0))}
    )()
    ours = liftnn.grad(loss, argnums=ARGNUMS[kind]())(2.0, 3.0, module)
    assert find_difference(ours, jax.grad(f, argnums=ARGNUMS[kind]())(2.0, 3.0)) is None


@pytest.mark.parametrize("argnums", ["x", 1.0, (0, 1.0), None, np.array([0.0])], ids=repr)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_argnums_of_another_type_are_a_type_error_as_in_jax(transform, argnums):
    ours, theirs = (
        caught(lambda of=of: getattr(of, transform)(f, argnums=argnums)(2.0, 3.0)) for of in (liftnn, jax)
    )
    assert isinstance(theirs, TypeError)
    assert isinstance(ours, TypeError)


@pytest.mark.parametrize("transform", TRANSFORMS[:2])
@pytest.mark.parametrize("args, kwargs", [((2.0, 3.0), {}), ((), {"x": 2.0, "y": 3.0})])
def test_an_argument_that_was_not_passed_by_position_is_a_type_error_as_in_jax(transform, args, kwargs):
    argnums = 2 if args else 0
    for of in (jax, liftnn):
        with pytest.raises(TypeError):
            getattr(of, transform)(f, argnums=argnums)(*args, **kwargs)
