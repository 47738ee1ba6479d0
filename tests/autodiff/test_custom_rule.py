"""What a custom function captures is an input without a derivative."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from tests.user_modules import Affine

import liftnn
from liftnn import errors


def test_what_the_function_captures_is_used_where_it_is_not_differentiated():
    model = Affine(2.0)
    f = liftnn.custom_vjp(lambda x: (model.w * x).sum())
    f.defvjp(lambda x: (f(x), None), lambda _, ct: (7.0 * ct,))
    derivative = liftnn.jit(liftnn.grad(f))
    assert float(derivative(1.0)) == 7.0
    assert float(f(1.0)) == 6.0
    model.w.value = model.w * 2
    assert (float(derivative(1.0)), float(f(1.0))) == (7.0, 12.0)
    with pytest.raises(errors.TraceContextError, match=r"^model.w is differentiated"):
        liftnn.jit(liftnn.grad(lambda w: (setattr(model.w, "value", w), f(1.0))[1]))(jnp.ones(3))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("place", ["attribute", "value", "inside"])
@pytest.mark.parametrize("transform", [liftnn.custom_vjp, liftnn.custom_jvp])
def test_a_numpy_array_is_not_changed_in_a_copy(transform, place, dtype):
    """JAX passes the function a copy if the dtype changes; a change of the copy would be lost."""
    model, array = Affine(2.0), np.arange(3, dtype=dtype)
    if place == "attribute":
        model.numbers = array
    else:
        model.numbers = liftnn.Variable(array if place == "value" else {"a": array})

    def change(x, model):
        numbers = model.numbers if place == "attribute" else model.numbers.value
        (numbers["a"] if place == "inside" else numbers)[0] += 1
        return x

    f = transform(change)
    if transform is liftnn.custom_vjp:
        f.defvjp(lambda x, model: (f(x, model), None), lambda _, ct: (ct, None))
    else:
        f.defjvp(lambda primals, tangents: (f(*primals), tangents[0]))
    with pytest.raises(TypeError, match="JAX arrays are immutable"):
        f(1.0, model)
    assert array.tolist() == [0, 1, 2]
