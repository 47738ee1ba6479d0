from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import errors

ZEROS = {"kernel_init": liftnn.initializers.zeros, "rngs": liftnn.Rngs(0)}

ONE_D = {"kernel_size": 3, "shape": (2, 8, 4)}
TWO_D = {"kernel_size": (3, 2), "shape": (2, 8, 7, 4)}

CASES = [
    ONE_D,
    TWO_D,
    {"kernel_size": (2, 3, 1), "shape": (1, 4, 5, 3, 4)},
    ONE_D | {"kernel_size": [3]},
    TWO_D | {"use_bias": False},
    TWO_D | {"strides": 2},
    TWO_D | {"strides": (2, 1)},
    TWO_D | {"strides": None, "kernel_dilation": None, "input_dilation": None},
    TWO_D | {"padding": "VALID"},
    TWO_D | {"padding": "SAME_LOWER"},
    TWO_D | {"padding": 1},
    TWO_D | {"padding": (1, 0)},
    TWO_D | {"padding": [(1, 2), 0]},
    TWO_D | {"padding": ((0, 0), (3, 1))},
    TWO_D | {"padding": "CIRCULAR", "strides": 2},
    TWO_D | {"padding": "CIRCULAR", "kernel_dilation": (2, 3)},
    TWO_D | {"padding": "REFLECT"},
    ONE_D | {"padding": "REFLECT", "kernel_size": 4},
    ONE_D | {"padding": "CAUSAL"},
    ONE_D | {"padding": "CAUSAL", "kernel_dilation": 2, "strides": 2},
    TWO_D | {"kernel_dilation": 2},
    TWO_D | {"input_dilation": 2, "padding": 1},
    TWO_D | {"input_dilation": (1, 3), "kernel_dilation": (2, 1), "padding": (0, (1, 2))},
    TWO_D | {"feature_group_count": 2},
    TWO_D | {"feature_group_count": 4, "precision": "highest"},
    TWO_D | {"mask": np.tril(np.ones((3, 2, 4, 8), np.float32))},
    TWO_D | {"dtype": jnp.bfloat16},
    TWO_D | {"param_dtype": jnp.bfloat16},
    TWO_D | {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32},
]


ZERO_D = {"kernel_size": (), "shape": (2, 4)}
CASES += [
    ZERO_D | options
    for options in (
        {},
        {"shape": (4,)},
        {"padding": "VALID"},
        {"padding": "CIRCULAR"},
        {"padding": "REFLECT"},
        {"padding": ()},
        {"strides": 2, "kernel_dilation": 2, "input_dilation": 2},
    )
]


@pytest.mark.sample(8)
@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: ",".join(f"{k}={v}" for k, v in case.items() if k != "mask")
)
def test_outputs_are_those_of_flax(case, agrees_with_flax, rand, drawn):
    options = dict(case)
    x = rand(*options.pop("shape"))
    ours, _ = agrees_with_flax("Conv", 4, 8, options.pop("kernel_size"), **drawn, x=x, **options)
    assert ours.kernel_shape == ours.kernel.value.shape


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options", [{}, {"padding": "CIRCULAR", "strides": 2}, {"feature_group_count": 2, "dtype": jnp.bfloat16}]
)
def test_gradients_are_those_of_flax(options, agrees_with_flax, rand, drawn):
    agrees_with_flax("Conv", 4, 8, (3, 2), **drawn, x=rand(2, 6, 5, 4), grad=True, **options)


def test_initial_weights_are_those_of_flax(agrees_with_flax, rand):
    agrees_with_flax("Conv", 4, 8, 3, x=rand(2, 8, 4))


@pytest.mark.sample(2)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_any_number_of_batch_axes(batch, agrees_with_flax, rand, drawn):
    agrees_with_flax("Conv", 4, 8, (3, 2), **drawn, x=rand(*batch, 6, 5, 4))


def test_an_empty_batch_gives_an_empty_output(rand):
    layer = liftnn.Conv(4, 8, (3, 2), **ZEROS)
    assert layer(rand(2, 0, 6, 5, 4)).shape == (2, 0, 6, 5, 8)


def test_padding_names_work_in_any_case(rand, close, drawn):
    layers = [liftnn.Conv(4, 8, 3, padding=p, rngs=liftnn.Rngs(0), **drawn) for p in ("CIRCULAR", "circular")]
    outputs = [layer(rand(2, 8, 4)) for layer in layers]
    close(*outputs)
    assert outputs[0].any()


@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR", "REFLECT", "CAUSAL", 1])
@pytest.mark.parametrize("size", [2, 5])
def test_a_kernel_of_another_size_is_padded_as_in_a_layer_of_that_size(size, padding, rand, close):
    layer, other = (
        liftnn.Conv(4, 8, n, padding=padding, kernel_dilation=2, rngs=liftnn.Rngs(0)) for n in (3, size)
    )
    layer.kernel.value = other.kernel.value
    close(layer(rand(2, 9, 4)), other(rand(2, 9, 4)))


def test_without_bias_the_bias_is_none():
    assert liftnn.Conv(4, 8, 3, use_bias=False, **ZEROS).bias is None


def test_the_given_convolution_is_called_without_options_that_were_not_given(rand):
    calls = []

    def convolve(lhs, rhs, window_strides, padding, *, lhs_dilation, rhs_dilation, dimension_numbers,
                 feature_group_count, precision):  # fmt: skip
        calls.append((window_strides, padding, lhs_dilation, rhs_dilation, feature_group_count, precision))
        return jnp.zeros((*lhs.shape[:-1], rhs.shape[-1]))

    layer = liftnn.Conv(4, 8, 3, 2, conv_general_dilated=convolve, **ZEROS)
    layer(rand(2, 8, 4))
    assert calls == [((2,), "SAME", (1,), (1,), 1, None)]


def test_a_wrong_number_of_features_is_refused_with_the_shape():
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.Conv(4, 8, (3, 3), **ZEROS)(jnp.ones((1, 28, 28, 3)))
    assert str(info.value) == (
        "This Conv expects inputs of 2 spatial dimensions and 4 features (channels last), but its input has "
        "shape (1, 28, 28, 3).\n"
        "Create the layer with the input's number of features, or change the input."
    )


def test_too_few_axes_are_refused():
    with pytest.raises(errors.ArgumentError, match=r"2 spatial dimensions .* shape \(4, 4\)"):
        liftnn.Conv(4, 8, (3, 3), **ZEROS)(jnp.ones((4, 4)))


@pytest.mark.parametrize("padding", ["SOME", (1, 2, 3), [(1, 2, 3), 1], 1.5, [None, 1]])
def test_an_unknown_padding_is_refused_when_the_layer_is_made(padding):
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.Conv(4, 8, (3, 3), padding=padding, **ZEROS)
    assert str(info.value) == (
        f"padding={padding!r} is not a valid padding for 2 spatial dimensions.\n"
        "Pass one of 'SAME', 'SAME_LOWER', 'VALID', 'CAUSAL', 'CIRCULAR', 'REFLECT', an int, or for each dimension an "
        "int or a pair (low, high)."
    )


def test_causal_padding_of_two_dimensions_is_refused(rand):
    with pytest.raises(
        errors.ArgumentError, match="CAUSAL padding needs one spatial dimension, but the kernel has 2"
    ):
        liftnn.Conv(4, 8, (3, 3), padding="CAUSAL", **ZEROS)(rand(1, 4, 4, 4))


def test_a_padding_by_name_of_dilated_inputs_is_refused():
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.Conv(4, 8, (3, 3), input_dilation=2, **ZEROS)
    assert str(info.value) == (
        "A Conv with input_dilation=2 cannot have padding='SAME': named paddings are only defined for inputs without "
        "dilation.\n"
        "Pass the padding as numbers, or use ConvTranspose."
    )


@pytest.mark.parametrize("name", ["strides", "input_dilation", "kernel_dilation"])
def test_sizes_for_another_number_of_dimensions_are_refused(name, rand):
    with pytest.raises(errors.ArgumentError, match=rf"2 spatial dimensions, but {name} is \(1, 1, 1\)"):
        liftnn.Conv(4, 8, (3, 3), **{name: (1, 1, 1)}, **ZEROS)(rand(1, 4, 4, 4))


@pytest.mark.parametrize("features, groups", [((4, 9), 2), ((3, 8), 2)])
def test_features_that_cannot_be_split_into_the_groups_are_refused(features, groups):
    with pytest.raises(errors.ArgumentError, match=f"cannot be split into feature_group_count={groups}"):
        liftnn.Conv(*features, 3, feature_group_count=groups, **ZEROS)


def test_a_mask_of_another_shape_is_refused_when_the_layer_is_made():
    with pytest.raises(
        errors.ArgumentError,
        match=r"mask of a convolution has shape \(3,\), but its kernel has shape \(3, 4, 8\)",
    ):
        liftnn.Conv(4, 8, 3, mask=jnp.ones((3,)), **ZEROS)


def test_a_mask_of_another_shape_set_later_is_refused_by_the_call(rand):
    layer = liftnn.Conv(4, 8, 3, mask=jnp.ones((3, 4, 8)), **ZEROS)
    layer.mask = jnp.ones((8,))
    with pytest.raises(errors.ArgumentError, match="mask of a convolution"):
        layer(rand(2, 8, 4))
