from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import errors

ZEROS = {"kernel_init": liftnn.initializers.zeros, "rngs": liftnn.Rngs(0)}

ONE_D = {"kernel_size": 3, "shape": (2, 8, 4)}
TWO_D = {"kernel_size": (3, 2), "shape": (2, 5, 4, 4)}

CASES = [
    ONE_D,
    TWO_D,
    TWO_D | {"strides": 2},
    TWO_D | {"strides": (2, 3), "use_bias": False},
    TWO_D | {"strides": 2, "padding": "VALID"},
    TWO_D | {"strides": 2, "padding": 1},
    TWO_D | {"padding": [(2, 1), 2]},
    TWO_D | {"kernel_dilation": (2, 1)},
    TWO_D | {"strides": 2, "padding": "CIRCULAR"},
    TWO_D | {"strides": 2, "padding": "CIRCULAR", "transpose_kernel": True},
    ONE_D | {"kernel_size": 6, "strides": 3, "padding": "CIRCULAR"},
    ONE_D | {"kernel_size": 20, "strides": 2, "padding": "CIRCULAR", "transpose_kernel": True},
    TWO_D | {"transpose_kernel": True, "strides": 2},
    {"kernel_size": (), "shape": (2, 4)},
    TWO_D | {"mask": np.tril(np.ones((3, 2, 4, 8), np.float32))},
    TWO_D | {"dtype": jnp.bfloat16},
    TWO_D | {"param_dtype": jnp.bfloat16, "preferred_element_type": jnp.float32},
]


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: ",".join(f"{k}={v}" for k, v in case.items() if k != "mask")
)
@pytest.mark.sample(6)
def test_outputs_are_those_of_flax(case, agrees_with_flax, rand, drawn):
    options = dict(case)
    x = rand(*options.pop("shape"))
    kernel_size = options.pop("kernel_size")
    agrees_with_flax("ConvTranspose", 4, 8, kernel_size, **drawn, x=x, **options)


@pytest.mark.thorough
@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR"])
def test_gradients_are_those_of_flax(padding, agrees_with_flax, rand, drawn):
    agrees_with_flax("ConvTranspose", 4, 8, 3, 2, padding=padding, **drawn, x=rand(2, 6, 4), grad=True)


def test_initial_weights_are_those_of_flax(agrees_with_flax, rand):
    agrees_with_flax("ConvTranspose", 4, 8, 3, x=rand(2, 8, 4))


@pytest.mark.sample(2)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_any_number_of_batch_axes(batch, agrees_with_flax, rand, drawn):
    agrees_with_flax("ConvTranspose", 4, 8, 3, **drawn, x=rand(*batch, 6, 4))


@pytest.mark.parametrize("padding", ["SAME", "VALID", "CIRCULAR", 1])
def test_an_empty_batch_gives_an_empty_output(padding, rand):
    layer = liftnn.ConvTranspose(4, 8, 3, 2, padding=padding, **ZEROS)
    assert layer(rand(0, 6, 4)).shape == (0, *layer(rand(1, 6, 4)).shape[1:])


@pytest.mark.sample(2)
@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR"])
def test_with_a_transposed_kernel_it_is_the_transpose_of_conv(padding, rand, close):
    forward = liftnn.Conv(4, 8, 4, 2, padding=padding, use_bias=False, rngs=liftnn.Rngs(0))
    back = liftnn.ConvTranspose(
        8, 4, 4, 2, padding=padding, use_bias=False, transpose_kernel=True, rngs=liftnn.Rngs(0)
    )
    back.kernel.value = forward.kernel.value
    x, y = rand(2, 8, 4), rand(2, 4, 8)
    close(back(y), jax.linear_transpose(forward, x)(y)[0])


def test_a_wrong_number_of_features_is_refused():
    with pytest.raises(
        errors.ArgumentError, match="This ConvTranspose expects inputs of 1 spatial dimensions and 4"
    ):
        liftnn.ConvTranspose(4, 8, 3, **ZEROS)(jnp.ones((1, 28, 3)))


@pytest.mark.parametrize("padding", ["CAUSAL", "reflect", "SAME_LOWER"])
def test_paddings_that_only_conv_has_are_refused(padding):
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.ConvTranspose(4, 8, 3, padding=padding, **ZEROS)
    assert str(info.value) == (
        f"A transposed convolution does not support padding={padding!r}.\n"
        "Pass one of 'SAME', 'VALID', 'CIRCULAR', or numbers."
    )


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(errors.ArgumentError, match=r"its kernel has shape \(3, 8, 4\)"):
        liftnn.ConvTranspose(4, 8, 3, mask=jnp.ones((3,)), transpose_kernel=True, **ZEROS)
