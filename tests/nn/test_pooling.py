from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn
from liftnn import errors

POOLS = ["avg_pool", "max_pool", "min_pool"]


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize(
    "shape, arguments",
    [
        ((2, 8, 3), ((2,),)),
        ((2, 8, 7, 3), ((2, 3),)),
        ((2, 8, 7, 3), ((2, 3), (2, 1))),
        ((2, 8, 7, 3), ((2, 3), (2, 2), "SAME")),
        ((2, 8, 7, 3), ((2, 3), None, ((1, 0), (0, 2)))),
        ((8, 7, 3), ((2, 2), (2, 2))),
        ((2, 3, 8, 7, 3), ((2, 2), (2, 2), "SAME")),
        ((1, 4, 5, 6, 2), ((2, 2, 2),)),
    ],
)
@pytest.mark.sample(8)
def test_windows_are_those_of_flax(name, shape, arguments, rand, close):
    close(getattr(liftnn, name)(rand(*shape), *arguments), getattr(nnx, name)(rand(*shape), *arguments))


@pytest.mark.sample(6)
@pytest.mark.parametrize("shape", [(8, 7, 3), (2, 8, 7, 3)])
@pytest.mark.parametrize("padding", ["VALID", "SAME", ((1, 1), (0, 1))])
def test_padding_can_be_left_out_of_the_average_as_in_flax(shape, padding, rand, close):
    ours, theirs = (
        library.avg_pool(rand(*shape), (3, 2), (2, 2), padding, count_include_pad=False)
        for library in (liftnn, nnx)
    )
    close(ours, theirs)


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", POOLS)
def test_gradients_are_those_of_flax(name, rand, close):
    def gradient(pool):
        return jax.grad(lambda x: (pool(x, (2, 2), (2, 2)) ** 2).sum())(rand(2, 8, 6, 3))

    close(gradient(getattr(liftnn, name)), gradient(getattr(nnx, name)))


@pytest.mark.parametrize("name", POOLS)
def test_bfloat16_stays_bfloat16(name, rand, close):
    x = rand(2, 8, 3, dtype=jnp.bfloat16)
    close(getattr(liftnn, name)(x, (2,)), getattr(nnx, name)(x, (2,)))
    assert liftnn.avg_pool(x, (2,), count_include_pad=False).dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_averages_of_large_windows_in_half_precision_are_those_of_numpy(dtype, count_include_pad, rand):
    x = 100 + rand(1, 40, 40, 2, dtype=dtype)
    result = liftnn.avg_pool(x, (40, 40), count_include_pad=count_include_pad)
    expected = np.asarray(x, np.float64).mean(axis=(1, 2), keepdims=True)
    assert result.dtype == dtype
    np.testing.assert_allclose(np.asarray(result, np.float64), expected, rtol=4e-3)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name, reduce", [("avg_pool", np.mean), ("max_pool", np.max), ("min_pool", np.min)])
@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool])
def test_integers_and_booleans_are_pooled(name, reduce, dtype):
    x = np.array([3, 0, 1, 2]).astype(dtype)
    result = getattr(liftnn, name)(jnp.asarray(x).reshape(1, 4, 1), (2,), (2,))
    np.testing.assert_array_equal(result.ravel(), reduce(x.reshape(2, 2), axis=1))


def test_any_reduction_can_be_used(rand, close):
    x = rand(2, 8, 3)
    close(
        liftnn.pool(x, 1.0, jax.lax.mul, (2,), (2,), "VALID"),
        nnx.pool(x, 1.0, jax.lax.mul, (2,), (2,), "VALID"),
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (((2, 2, 2, 2),), r"A window of shape \(2, 2, 2, 2\) needs .* has shape \(2, 8, 7, 3\)"),
        (((2, 2), (2,)), r"The strides \(2,\) and the window \(2, 2\) have different numbers of dimensions"),
        (
            ((2, 2), None, "CIRCULAR"),
            r"padding='CIRCULAR' is not a valid padding for a window of shape \(2, 2\)",
        ),
        (((2, 2), None, ((1, 1),)), r"padding=\(\(1, 1\),\) is not a valid padding"),
        (((2, 2), None, (1,)), r"padding=.* is not a valid padding"),
    ],
)
@pytest.mark.parametrize("name", POOLS)
def test_arguments_that_do_not_fit_are_refused(name, arguments, message, rand):
    with pytest.raises(errors.ArgumentError, match=message):
        getattr(liftnn, name)(rand(2, 8, 7, 3), *arguments)


@pytest.mark.parametrize("name", POOLS)
def test_ints_for_strides_and_padding_count_for_all_dimensions(name, rand):
    x, pool = rand(2, 8, 7, 3), getattr(liftnn, name)
    expected = pool(x, (3, 2), (2, 2), ((1, 1), (1, 1)))
    np.testing.assert_array_equal(pool(x, (3, 2), 2, 1), expected)
    np.testing.assert_array_equal(pool(x, (3, 2), strides=2, padding=(1, (1, 1))), expected)


@pytest.mark.parametrize("name", POOLS)
def test_an_int_as_a_window_is_refused(name, rand):
    with pytest.raises(errors.ArgumentTypeError) as info:
        getattr(liftnn, name)(rand(2, 8, 7, 3), 2)
    assert str(info.value) == (
        "The window of a pooling has one size for each spatial dimension, but window_shape is the int 2.\n"
        "Pass a tuple, such as (2, 2) for images; liftnn does not guess which axes are batch axes."
    )


@pytest.mark.parametrize("name", ["avg_pool", "max_pool", "min_pool"])
def test_an_input_that_is_not_an_array_is_refused(name):
    with pytest.raises(errors.ArgumentTypeError) as info:
        getattr(liftnn, name)(None, (2,))
    assert str(info.value) == (
        f"This {name} takes an array, but its input is None.\n"
        "Pass an array. If the input is the result of a function, check that it returns one."
    )
