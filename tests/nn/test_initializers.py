from __future__ import annotations

import jax
import numpy as np
import pytest
from flax.nnx.nn import initializers as flax_initializers

from liftnn._src.nn import initializers


@pytest.mark.parametrize("name", sorted(set(initializers.__all__) - {"zeros_init", "ones_init"}))
def test_each_initializer_is_the_one_of_jax(name):
    assert getattr(initializers, name) is getattr(jax.nn.initializers, name)


def test_none_of_flax_is_missing():
    theirs = {
        name for name, value in vars(flax_initializers).items() if callable(value) and name[0].islower()
    }
    assert theirs <= set(initializers.__all__)


@pytest.mark.parametrize("name, value", [("zeros_init", 0), ("ones_init", 1)])
def test_zeros_init_and_ones_init_fill_with_one_number(name, value):
    array = getattr(initializers, name)()(jax.random.key(0), (2, 3))
    np.testing.assert_array_equal(array, np.full((2, 3), value, np.float32))
