from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.nnx.nn import attention as flax_attention
from tests.quick import quick

import liftnn
from liftnn import errors

DTYPES = [jnp.float32, jnp.bfloat16]


def make_arrays(rand, batch=(2,), key_heads=4, dtype=jnp.float32):
    """Query, key and value of four query heads, five queries and six keys."""
    query = rand(*batch, 5, 4, 8, dtype=dtype)
    key = rand(*batch, 6, key_heads, 8, dtype=dtype)
    return query, key, key[..., ::-1, :, ::-1]


def make_options(rand, batch, case):
    """Options that concern the weights of the arrays above."""
    bias = rand(*batch, 4, 5, 6)
    options = {
        "plain": {},
        "bias": {"bias": bias},
        "mask": {"mask": bias > -0.5},
        "causal": {"is_causal": True},
        "all": {"bias": bias, "mask": bias > -0.5, "is_causal": True},
    }
    return options[case]


@pytest.mark.thorough
@pytest.mark.parametrize("case", ["plain", "bias", "mask", "causal", "all"])
@pytest.mark.parametrize("dtype", quick(DTYPES))
@pytest.mark.parametrize("batch, key_heads", [((), 4), ((2,), 2), ((2, 3), 1)])
@pytest.mark.sample(16)
def test_weights_and_averages_are_those_of_flax_bit_for_bit(batch, key_heads, dtype, case, rand, identical):
    query, key, value = make_arrays(rand, batch, key_heads, dtype)
    options = make_options(rand, batch, case)
    identical(
        liftnn.dot_product_attention_weights(query, key, **options),
        flax_attention.dot_product_attention_weights(query, key, **options),
    )
    identical(
        liftnn.dot_product_attention(query, key, value, **options),
        nnx.dot_product_attention(query, key, value, **options),
    )


@pytest.mark.parametrize("broadcast", [True, False])
@pytest.mark.parametrize("dtype", quick(DTYPES))
@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.sample(3)
def test_dropout_is_that_of_flax_bit_for_bit(key_heads, dtype, broadcast, rand, identical):
    arrays = make_arrays(rand, (2, 3), key_heads, dtype)
    options = {
        "broadcast_dropout": broadcast, "dropout_rng": jax.random.key(5), "dropout_rate": 0.4,
        **make_options(rand, (2, 3), "all"),
    }  # fmt: skip
    identical(liftnn.dot_product_attention(*arrays, **options), nnx.dot_product_attention(*arrays, **options))
    identical(
        liftnn.dot_product_attention(*arrays, deterministic=True, **options),
        nnx.dot_product_attention(*arrays, deterministic=True, **options),
    )


@pytest.mark.thorough
@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.sample(6)
def test_gradients_are_those_of_flax_bit_for_bit(rate, key_heads, rand, identical):
    def gradients(library):
        def loss(arrays):
            y = library.dot_product_attention(
                *arrays, dropout_rng=jax.random.key(5), dropout_rate=rate, is_causal=True
            )
            return jnp.sin(y).sum()

        return jax.grad(loss)(make_arrays(rand, (2,), key_heads))

    jax.tree.map(identical, gradients(liftnn), gradients(nnx))


@pytest.mark.thorough
def test_the_dtype_of_the_computation_can_be_set_as_in_flax(rand, identical):
    arrays = make_arrays(rand)
    for options in ({}, {"dropout_rate": 0.4, "dropout_rng": jax.random.key(0)}):
        ours = liftnn.dot_product_attention(*arrays, dtype=jnp.bfloat16, **options)
        assert ours.dtype == jnp.bfloat16
        identical(ours, nnx.dot_product_attention(*arrays, dtype=jnp.bfloat16, **options))


@pytest.mark.thorough
def test_both_ways_to_compute_give_the_same_averages(rand, close):
    for key_heads in (4, 2, 1):
        query, key, value = make_arrays(rand, (2, 3), key_heads)
        options = make_options(rand, (2, 3), "all")
        close(
            liftnn.dot_product_attention(query, key, value, **options),
            liftnn.dot_product_attention(query, key, value, module=liftnn.Module(), **options),
        )


@pytest.mark.parametrize("shape", [(6,), (5, 6), (1, 1, 6), (4, 1, 6), (2, 1, 1, 1, 6), (1, 3, 4, 5, 6)])
@pytest.mark.sample(6)
def test_masks_and_biases_that_broadcast_are_those_of_the_whole_shape(shape, rand, close):
    query, key, value = make_arrays(rand, (2, 3))
    x = rand(*shape)
    whole = jnp.broadcast_to(x, (2, 3, 4, 5, 6))
    for module in (None, liftnn.Module()):
        ours = liftnn.dot_product_attention(query, key, value, x, x > -0.5, module=module, is_causal=True)
        close(ours, nnx.dot_product_attention(query, key, value, whole, whole > -0.5, is_causal=True))


@pytest.mark.thorough
def test_values_may_have_their_own_depth_and_number_of_heads(rand, close):
    query, key, value = make_arrays(rand)
    whole = liftnn.dot_product_attention(query, key, value)
    close(liftnn.dot_product_attention(query, key, value[..., :3]), whole[..., :3])
    shared = jnp.repeat(value[..., :2, :], 2, axis=-2)
    close(
        liftnn.dot_product_attention(query, key, value[..., :2, :]),
        liftnn.dot_product_attention(query, key, shared),
    )


def test_a_module_records_the_weights_before_dropout(rand, identical):
    query, key, value = make_arrays(rand)
    module = liftnn.Module()
    liftnn.dot_product_attention(
        query, key, value, module=module, dropout_rate=0.5, dropout_rng=jax.random.key(0)
    )
    (weights,) = module.attention_weights.value
    assert isinstance(module.attention_weights, liftnn.Intermediate)
    identical(weights, liftnn.dot_product_attention_weights(query, key))


def test_broadcast_dropout_drops_the_same_weights_in_each_batch_element_and_head(rand):
    query, key, _ = make_arrays(rand)
    options = {"dropout_rate": 0.5, "dropout_rng": jax.random.key(0)}
    shared = liftnn.dot_product_attention_weights(query, key, **options) == 0
    assert (shared == shared[:1, :1]).all()
    own = liftnn.dot_product_attention_weights(query, key, broadcast_dropout=False, **options) == 0
    assert not (own == own[:1, :1]).all()


def test_a_dropout_rate_of_one_gives_zeros_and_no_nan(rand):
    arrays = make_arrays(rand)
    y = liftnn.dot_product_attention(*arrays, dropout_rate=1.0, dropout_rng=jax.random.key(0))
    np.testing.assert_array_equal(y, np.zeros(y.shape))


def test_a_module_under_jit_gets_the_weights(rand, identical):
    class Model(liftnn.Module):
        def __call__(self, x):
            return liftnn.dot_product_attention(x, x, x, module=self)

    model, x = Model(), rand(3, 1, 4)
    liftnn.jit(lambda model, x: model(x))(model, x)
    assert model.attention_weights.value[0].shape == (1, 3, 3)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "query, key, value, message",
    [
        (
            (5, 8), (6, 8), (6, 8),
            ("Attention needs arrays of shape (*batch, length, heads, depth) with the same batch axes, but the query "
            "has shape (5, 8) and the key (6, 8).\n"
            "Pass arrays with these axes; add an axis of one head with x[..., None, :]."),
        ),
        (
            (2, 5, 4, 8), (3, 6, 4, 8), (3, 6, 4, 8),
            ("Attention needs arrays of shape (*batch, length, heads, depth) with the same batch axes, but the query "
            "has shape (2, 5, 4, 8) and the key (3, 6, 4, 8).\n"
            "Pass arrays with these axes; add an axis of one head with x[..., None, :]."),
        ),
        (
            (5, 4, 8), (6, 4, 7), (6, 4, 7),
            ("Attention compares queries and keys of one depth, but the query has depth 8 and the key 7.\n"
            "Project both to the same number of features per head."),
        ),
        (
            (5, 4, 8), (6, 3, 8), (6, 3, 8),
            ("The 4 query heads cannot be divided evenly among 3 key heads.\n"
            "Use a number of query heads that is a multiple of it."),
        ),
        (
            (5, 4, 8), (6, 4, 8), (6, 3, 8),
            ("The 4 query heads cannot be divided evenly among 3 value heads.\n"
            "Use a number of query heads that is a multiple of it."),
        ),
        (
            (5, 4, 8), (6, 4, 8), (7, 4, 8),
            ("Attention needs one value for each key, but the key has shape (6, 4, 8) and the value (7, 4, 8).\n"
            "Pass keys and values with the same batch axes and length."),
        ),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_together_are_refused(query, key, value, message):
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.dot_product_attention(jnp.ones(query), jnp.ones(key), jnp.ones(value))
    assert str(info.value) == message


@pytest.mark.parametrize("name", ["bias", "mask"])
@pytest.mark.parametrize("shape", [(7,), (2, 4, 6, 5), (3, 1, 1, 1), (1, 2, 4, 5, 6)])
def test_a_mask_or_bias_of_another_shape_is_refused(name, shape, rand):
    query, key, value = make_arrays(rand)
    message = (
        f"The {name} of attention has shape {shape}, which does not broadcast to (2, 4, 5, 6), the shape of the "
        "weights (*batch, heads, query_length, key_length).\n"
        f"Pass a {name} with these sizes, or 1, along each axis."
    )
    options = {name: jnp.ones(shape)}
    for call in (
        lambda: liftnn.dot_product_attention(query, key, value, **options),
        lambda: liftnn.dot_product_attention_weights(query, key, **options),
    ):
        with pytest.raises(errors.ArgumentError) as info:
            call()
        assert str(info.value) == message


def test_dropout_without_a_key_is_refused(rand):
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.dot_product_attention(*make_arrays(rand), dropout_rate=0.5)
    assert str(info.value) == (
        "Attention with dropout_rate=0.5 needs a key, but dropout_rng is None.\n"
        "Pass dropout_rng=jax.random.key(0), or disable dropout with deterministic=True."
    )


def test_a_dropout_rate_that_is_no_probability_is_refused(rand):
    with pytest.raises(errors.ArgumentError, match="The dropout_rate of attention must be a probability"):
        liftnn.dot_product_attention(*make_arrays(rand), dropout_rate=1.5, dropout_rng=jax.random.key(0))


@pytest.mark.parametrize("mask", [np.tril(np.ones((5, 5))), jnp.tril(jnp.ones((5, 5))), np.tri(5).tolist()])
def test_a_constant_mask_of_floats_has_an_effect_in_every_trace(mask, rand, close):
    x = rand(2, 5, 4, 8)
    expected = liftnn.dot_product_attention(x, x, x, is_causal=True)

    def attend(x):
        return liftnn.dot_product_attention(x, x, x, mask=mask)

    close(attend(x), expected)
    close(jax.jit(attend)(x), expected)
    close(liftnn.jit(attend)(x), expected)
    close(liftnn.map(attend, x[None])[0], expected)
    close(jax.vmap(attend)(x[None])[0], expected)


def test_a_constant_mask_to_be_added_is_refused_in_every_trace(rand):
    x, mask = rand(2, 5, 4, 8), jnp.full((5, 5), -1e9)
    for trace in (jax.jit, liftnn.jit, jax.vmap):
        with pytest.raises(errors.ArgumentError, match="The attention mask has negative numbers"):
            trace(lambda x: liftnn.dot_product_attention(x, x, x, mask=mask))(x)
