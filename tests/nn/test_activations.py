from __future__ import annotations

import jax
import pytest
from flax import nnx

import liftnn
from liftnn._src.nn import activations


@pytest.mark.parametrize("name", activations.__all__)
def test_each_activation_is_the_one_of_flax(name):
    assert getattr(liftnn, name) is getattr(activations, name) is getattr(nnx, name)


def test_none_of_flax_is_missing():
    functions = {name for name in vars(nnx) if hasattr(jax.nn, name) and callable(getattr(nnx, name))}
    assert functions - set(activations.__all__) == {"dot_product_attention"}
