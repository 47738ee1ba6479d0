from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from tests.raising import raises

import liftnn
from liftnn import errors

GRADIENTS = ({}, {"num_groups": 3}, {"reduction_axes": (1, 2)})
COMMON = [{}, {"epsilon": 0.1}, {"use_scale": False}, {"dtype": jnp.bfloat16}, {"param_dtype": jnp.bfloat16}]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    [
        *COMMON,
        {"use_bias": False},
        {"use_scale": False, "use_bias": False},
        {"use_fast_variance": False},
        {"reduction_axes": (1, 2)},
        {"reduction_axes": [-1, -2], "feature_axes": [-1]},
        {"feature_axes": 1},
    ],
)
@pytest.mark.sample(12)
def test_layer_norm_is_that_of_flax(options, agrees_with_flax, rand, drawn_norm):
    agrees_with_flax(
        "LayerNorm", 6, x=1 + 2 * rand(4, 6, 6), grad=options in GRADIENTS, **drawn_norm, **options
    )


def test_layer_norm_can_have_weights_along_several_axes(agrees_with_flax, rand, drawn_norm):
    x = rand(4, 2, 3)
    agrees_with_flax("LayerNorm", 6, x=x, reduction_axes=(1, 2), feature_axes=(1, 2), **drawn_norm)


@pytest.mark.parametrize("options", [*COMMON, {"reduction_axes": (1, 2)}, {"feature_axes": 1}])
@pytest.mark.sample(2)
def test_rms_norm_is_that_of_flax(options, agrees_with_flax, rand, drawn_norm):
    drawn, x = {"scale_init": drawn_norm["scale_init"]}, 1 + 2 * rand(4, 6, 6)
    agrees_with_flax("RMSNorm", 6, x=x, grad=options in GRADIENTS, **drawn, **options)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    [
        *({"num_groups": 3} | common for common in COMMON),
        {"num_groups": 3, "use_bias": False},
        {"num_groups": 1},
        {"num_groups": 6, "use_fast_variance": False},
        {"num_groups": None, "group_size": 2},
        {"num_groups": 2, "reduction_axes": (1, 2, 3)},
        {"num_groups": 2, "reduction_axes": (-1,)},
    ],
)
@pytest.mark.sample(12)
def test_group_norm_is_that_of_flax(options, agrees_with_flax, rand, drawn_norm):
    x = rand(4, 6) if options.get("reduction_axes") == (-1,) else 1 + 2 * rand(3, 4, 5, 6)
    agrees_with_flax("GroupNorm", 6, x=x, grad=options in GRADIENTS, **drawn_norm, **options)


def test_group_norm_has_32_groups_unless_told(agrees_with_flax, rand, drawn_norm):
    ours, _ = agrees_with_flax("GroupNorm", 64, x=rand(2, 3, 64))
    assert (ours.num_groups, ours.group_size) == (32, 2)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name, arguments", [("LayerNorm", (6,)), ("RMSNorm", (6,)), ("GroupNorm", (6, 2))])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32])
def test_dtypes_of_the_input_are_promoted_as_in_flax(
    name, arguments, dtype, agrees_with_flax, rand, drawn_norm
):
    agrees_with_flax(name, *arguments, x=(4 * rand(3, 4, 6)).astype(dtype))


@pytest.mark.parametrize("name, arguments", [("LayerNorm", (6,)), ("RMSNorm", (6,)), ("GroupNorm", (6, 2))])
def test_what_the_mask_leaves_out_does_not_count(name, arguments, agrees_with_flax, rand, drawn_norm):
    mask = jnp.broadcast_to(jnp.arange(6) % 3 > 0, (3, 4, 6))
    agrees_with_flax(name, *arguments, x=rand(3, 4, 6), call={"mask": mask})


@pytest.mark.parametrize("name, arguments", [("LayerNorm", (6,)), ("RMSNorm", (6,)), ("GroupNorm", (6, 1))])
@pytest.mark.parametrize("shape", [(6,), (3, 4, 6), (1, 4, 6)])
@pytest.mark.sample(2)
def test_a_mask_gives_the_numbers_of_flax_bit_for_bit(name, arguments, shape, agrees_with_flax, rand):
    if name == "GroupNorm" and shape == (6,):
        shape = (3, 1, 6)  # Flax takes no mask of fewer axes here
    mask = (jnp.arange(np.prod(shape)) % 4 < 3).reshape(shape)
    ours, theirs = agrees_with_flax(name, *arguments, x=rand(3, 4, 6), call={"mask": mask})
    np.testing.assert_array_equal(ours(rand(3, 4, 6), mask=mask), theirs(rand(3, 4, 6), mask=mask))


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 4), (1, 3, 4), (3,)])
@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm", "InstanceNorm"])
def test_a_mask_that_does_not_broadcast_to_the_input_is_an_error_with_both_shapes(name, shape):
    options = {"num_groups": 2} if name == "GroupNorm" else {}
    layer = getattr(liftnn, name)(4, **options, rngs=liftnn.Rngs(0))
    with raises(
        errors.ArgumentError,
        f"The mask of this {name} must broadcast to the shape of its input, (3, 4), but it has the shape {shape}.\n"
        "Pass a mask of the input's shape, or one with axes of size 1, such as `mask[..., None]`, that repeats.",
    ):
        layer(jnp.ones((3, 4)), mask=jnp.ones(shape, bool))


def test_a_mask_of_group_norm_broadcasts(rand, close):
    layer = liftnn.GroupNorm(6, 2, rngs=liftnn.Rngs(0))
    mask = jnp.array([True, False, True, True])[None, :, None]
    close(layer(rand(3, 4, 6), mask=mask), layer(rand(3, 4, 6), mask=jnp.broadcast_to(mask, (3, 4, 6))))


@pytest.mark.thorough
def test_group_norm_over_space_only_normalizes_each_leading_axis_by_itself(rand, close):
    layer = liftnn.GroupNorm(6, 2, reduction_axes=(2, 3), rngs=liftnn.Rngs(0))
    x = rand(3, 4, 5, 6)
    merged = liftnn.GroupNorm(6, 2, rngs=liftnn.Rngs(0))(x.reshape(12, 5, 6))
    close(layer(x), merged.reshape(x.shape))


def test_a_scale_of_one_feature_that_is_zero_is_used(close):
    layer = liftnn.LayerNorm(1, scale_init=liftnn.initializers.zeros, rngs=liftnn.Rngs(0))
    np.testing.assert_array_equal(layer(jnp.ones((2, 1))), np.zeros((2, 1)))


@pytest.mark.parametrize("name, arguments", [("LayerNorm", (6,)), ("RMSNorm", (6,)), ("GroupNorm", (6, 2))])
def test_a_wrong_number_of_features_is_refused(name, arguments, rand):
    layer = getattr(liftnn, name)(*arguments, rngs=liftnn.Rngs(0))
    with pytest.raises(errors.ArgumentError) as info:
        layer(rand(2, 5))
    assert str(info.value) == (
        f"This {name} expects 6 input features, but its input of shape (2, 5) has 5 along axis 1.\n"
        "Create the layer with the input's number of features, or change the input."
    )


def test_a_wrong_number_of_features_along_several_axes_is_refused(rand):
    layer = liftnn.LayerNorm(6, feature_axes=(1, 2), rngs=liftnn.Rngs(0))
    with pytest.raises(errors.ArgumentError, match=r"has 10 along axes \(1, 2\)"):
        layer(rand(4, 2, 5))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((6,), "cannot split 6 features evenly with num_groups=32"),
        ((6, 0), "num_groups=0"),
        ((6, 2.0), r"num_groups=2\.0"),
        ((6, None, 4), "cannot split 6 features evenly with group_size=4"),
        ((6, None, None), "either num_groups or group_size, but they are None and None"),
        ((6, 2, 3), "either num_groups or group_size, but they are 2 and 3"),
    ],
)
def test_groups_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(errors.ArgumentError, match=message):
        liftnn.GroupNorm(*arguments, rngs=liftnn.Rngs(0))


def test_group_norm_without_the_feature_axis_is_refused(rand):
    with pytest.raises(errors.ArgumentError, match=r"reduction_axes=\(1,\) does not include the last axis"):
        liftnn.GroupNorm(6, 2, reduction_axes=(1,), rngs=liftnn.Rngs(0))(rand(3, 4, 6))


def test_group_norm_without_a_batch_axis_is_an_error(rand):
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.GroupNorm(6, 2, rngs=liftnn.Rngs(0))(rand(6))
    assert str(info.value) == (
        "GroupNorm takes the first axis as the batch, but its input has only one axis, that of the features.\n"
        "Add a batch axis, for example x[None], or pass reduction_axes=-1."
    )


def test_an_axis_that_the_input_has_not_is_refused(rand):
    with pytest.raises(errors.ArgumentError, match=r"needs axes \(3,\), but its input has 2 axes"):
        liftnn.LayerNorm(6, reduction_axes=3, rngs=liftnn.Rngs(0))(rand(2, 6))
