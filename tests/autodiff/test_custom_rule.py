"""What a custom function captures is an input without a derivative."""

from __future__ import annotations

import jax.numpy as jnp
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
