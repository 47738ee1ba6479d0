from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises

import liftnn
from liftnn import errors

OPTIONS = [
    {},
    {"epsilon": 0.1},
    {"use_scale": False},
    {"use_bias": False},
    {"use_fast_variance": False},
    {"dtype": jnp.bfloat16},
    {"param_dtype": jnp.bfloat16},
    {"feature_axes": 1},
]


@pytest.mark.thorough
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.sample(8)
def test_outputs_and_gradients_are_those_of_flax(options, agrees_with_flax, rand, drawn_norm):
    x = 1 + 2 * rand(3, 4, 5, 4)
    ours, theirs = agrees_with_flax("InstanceNorm", 4, x=x, grad=options == {}, **drawn_norm, **options)
    np.testing.assert_array_equal(ours(x), theirs(x))


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int32])
def test_dtypes_of_the_input_are_promoted_as_in_flax(dtype, agrees_with_flax, rand):
    agrees_with_flax("InstanceNorm", 6, x=(4 * rand(3, 4, 6)).astype(dtype))


def test_a_mask_gives_the_numbers_of_flax(agrees_with_flax, rand):
    mask = (jnp.arange(4) < 3)[None, :, None]
    ours, theirs = agrees_with_flax("InstanceNorm", 6, x=rand(3, 4, 6), call={"mask": mask})
    np.testing.assert_array_equal(ours(rand(3, 4, 6), mask=mask), theirs(rand(3, 4, 6), mask=mask))


def test_metadata_is_kept():
    metadata = {"scale_metadata": {"sharding": ("a",)}, "bias_metadata": {"tag": "b"}}
    layer = liftnn.InstanceNorm(6, **metadata, rngs=liftnn.Rngs(0))
    assert (layer.scale.sharding, layer.bias.tag) == (("a",), "b")


def test_the_batch_is_not_a_feature_axis(rand):
    layer = liftnn.InstanceNorm(6, feature_axes=(0, -1), rngs=liftnn.Rngs(0))
    with raises(
        errors.ArgumentError,
        "InstanceNorm takes the first axis as the batch, but feature_axes=(0, -1) includes it for an input of shape "
        "(2, 6).\nPass an input of shape (batch, ..., num_features), or other feature axes.",
    ):
        layer(rand(2, 6))
    with raises(
        errors.ArgumentError,
        "This InstanceNorm expects 6 input features, but its input of shape (2, 5) has 5 along axis 1.\n"
        "Create the layer with the input's number of features, or change the input.",
    ):
        liftnn.InstanceNorm(6, rngs=liftnn.Rngs(0))(rand(2, 5))
