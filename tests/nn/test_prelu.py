from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn


@pytest.mark.sample(2)
@pytest.mark.parametrize("options", [{}, {"negative_slope_init": 0.3}, {"dtype": jnp.bfloat16}])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_outputs_are_those_of_flax(options, dtype, rand, close):
    x = rand(4, 5, dtype=dtype)
    close(liftnn.PReLU(**options)(x), nnx.PReLU(**options)(x))


def test_the_slope_is_a_param_of_the_given_dtype_and_metadata():
    layer = liftnn.PReLU(0.25, param_dtype=jnp.bfloat16, negative_slope_metadata={"note": "n"})
    assert isinstance(layer.negative_slope, liftnn.Param)
    assert layer.negative_slope.value.dtype == jnp.bfloat16
    assert layer.negative_slope.note == "n"
    np.testing.assert_array_equal(layer(jnp.array([-4.0, 2.0])), [-1, 2])
