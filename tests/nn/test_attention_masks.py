from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn
from liftnn import errors

TOKENS = np.array([[1, 1, 0, 1], [1, 0, 0, 0]], bool)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"extra_batch_dims": 2},
        {"dtype": bool},
        {"pairwise_fn": jnp.less_equal, "dtype": jnp.bfloat16},
        {"pairwise_fn": jnp.equal, "extra_batch_dims": 1},
    ],
)
def test_attention_masks_are_those_of_flax(options, identical):
    query, key = jnp.asarray(TOKENS), jnp.asarray(TOKENS[:, :3])
    identical(
        liftnn.make_attention_mask(query, key, **options), nnx.make_attention_mask(query, key, **options)
    )


@pytest.mark.parametrize("shape", [(4,), (2, 4), (3, 2, 4)])
@pytest.mark.parametrize("options", [{}, {"extra_batch_dims": 2}, {"dtype": bool}])
@pytest.mark.sample(2)
def test_causal_masks_are_those_of_flax(shape, options, identical):
    x = jnp.ones(shape)
    identical(liftnn.make_causal_mask(x, **options), nnx.make_causal_mask(x, **options))


def test_a_causal_mask_lets_each_position_attend_to_itself_and_those_before():
    np.testing.assert_array_equal(liftnn.make_causal_mask(jnp.ones(5))[0], np.tril(np.ones((5, 5))))


def test_masks_are_combined_by_logical_and_as_in_flax(identical):
    x = jnp.asarray(TOKENS)
    padding, causal = liftnn.make_attention_mask(x, x), liftnn.make_causal_mask(x)
    for dtype in (jnp.float32, bool):
        combined = liftnn.combine_masks(padding, None, causal, dtype=dtype)
        identical(combined, nnx.combine_masks(padding, None, causal, dtype=dtype))
    np.testing.assert_array_equal(combined, (padding * causal).astype(bool))


def test_masks_broadcast_when_they_are_combined():
    rows, columns = jnp.array([[1], [0]]), jnp.array([[1, 0, 1]])
    assert liftnn.combine_masks(rows, columns, dtype=int).tolist() == [[1, 0, 1], [0, 0, 0]]


def test_without_any_mask_the_combination_is_none():
    assert liftnn.combine_masks() is None
    assert liftnn.combine_masks(None, None) is None


def test_masks_with_different_numbers_of_axes_are_refused():
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.combine_masks(jnp.ones((2, 1, 4, 4)), jnp.ones((4, 4)))
    assert str(info.value) == (
        "Masks must have the same number of axes, but their shapes are (2, 1, 4, 4), (4, 4).\n"
        "Add the missing axes of size 1, for example with mask[:, None]."
    )
