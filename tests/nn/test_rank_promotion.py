"""JAX can be set to refuse implicit axes, with `jax_numpy_rank_promotion="raise"`: no layer needs them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.nn.test_layers_on_meshes import LAYERS

import liftnn
from liftnn.compat import nnx

TABLE = {
    **LAYERS,
    "RoPE": (lambda r: nnx.RoPE(), (np.ones((2, 8, 4), np.float32),)),
    "RoPE, tables": (
        lambda r: nnx.RoPE(embedding_size=4, max_seq_len=8),
        (np.ones((2, 8, 4), np.float32),),
    ),
}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.sample(10)
def test_no_layer_adds_axes_implicitly(name):
    make, inputs = TABLE[name]

    def run():
        return liftnn.eval_shape(lambda layer: layer(*inputs), make(liftnn.Rngs(0, params=1, dropout=2)))

    expected = run()
    with jax.numpy_rank_promotion("raise"):
        assert run() == expected


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"dropout_rate": 0.5}], ids=str)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_a_bias_and_a_mask_of_attention_may_have_fewer_axes(options, batch, rand):
    query, key = rand(*batch, 5, 4, 8), rand(*batch, 6, 2, 8)
    bias, mask = rand(6), np.arange(6) % 3 > 0
    options = {**options, "dropout_rng": jax.random.key(0)}
    whole = {
        "bias": jnp.broadcast_to(bias, (*batch, 4, 5, 6)),
        "mask": jnp.broadcast_to(mask, (*batch, 4, 5, 6)),
    }
    expected = liftnn.dot_product_attention(query, key, key, **whole, **options)
    with jax.numpy_rank_promotion("raise"):
        y = liftnn.dot_product_attention(query, key, key, bias=bias, mask=mask, **options)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
