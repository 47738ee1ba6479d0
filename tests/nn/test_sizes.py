"""A size is an int of 0 or more; any other argument of a layer that is a size is an error with its name."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export
from tests.raising import raises

import liftnn
from liftnn import errors

ZEROS = {"kernel_init": liftnn.initializers.zeros}
CELLS = ("SimpleCell", "GRUCell", "LSTMCell", "OptimizedLSTMCell")
NORMS = ("LayerNorm", "BatchNorm", "RMSNorm", "InstanceNorm", "GroupNorm")
ONE = {  # the layer and the argument, and how to make the layer with a size of 8
    **{(name, "num_features"): {} for name in NORMS},
    ("Linear", "in_features"): {"out_features": 3},
    ("Linear", "out_features"): {"in_features": 3},
    ("Embed", "num_embeddings"): {"features": 3},
    ("Embed", "features"): {"num_embeddings": 3},
    ("Conv", "in_features"): {"out_features": 8, "kernel_size": 3},
    ("Conv", "out_features"): {"in_features": 8, "kernel_size": 3},
    ("Conv", "feature_group_count"): {"in_features": 8, "out_features": 8, "kernel_size": 3},
    ("ConvTranspose", "in_features"): {"out_features": 8, "kernel_size": 3},
    ("ConvTranspose", "out_features"): {"in_features": 8, "kernel_size": 3},
    ("MultiHeadAttention", "num_heads"): {"in_features": 8},
    ("MultiHeadAttention", "num_kv_heads"): {"num_heads": 8, "in_features": 8},
    ("MultiHeadAttention", "qkv_features"): {"num_heads": 2, "in_features": 8},
    ("LoRA", "in_features"): {"lora_rank": 2, "out_features": 3},
    ("LoRA", "lora_rank"): {"in_features": 2, "out_features": 3},
    ("LoRA", "out_features"): {"in_features": 2, "lora_rank": 3},
    ("LoRALinear", "lora_rank"): {"in_features": 2, "out_features": 3},
    ("LoRALinear", "in_features"): {"lora_rank": 2, "out_features": 3},
    **{(name, "in_features"): {"hidden_features": 3} for name in CELLS},
    **{(name, "hidden_features"): {"in_features": 3} for name in CELLS},
}
SEVERAL = {
    ("LinearGeneral", "in_features"): {"out_features": 3},
    ("LinearGeneral", "out_features"): {"in_features": 3},
    ("Conv", "kernel_size"): {"in_features": 2, "out_features": 3},
    ("ConvTranspose", "kernel_size"): {"in_features": 2, "out_features": 3},
    ("Einsum", "kernel_shape"): {"einsum_str": "a...,b...->ab..."},
    ("Einsum", "bias_shape"): {"einsum_str": "ab,bc->ac", "kernel_shape": (2, 3)},
    ("MultiHeadAttention", "in_features"): {"num_heads": 2, "qkv_features": 4},
    ("MultiHeadAttention", "in_kv_features"): {"num_heads": 2, "in_features": 4},
    ("MultiHeadAttention", "out_features"): {"num_heads": 2, "in_features": 4},
}


def options(cls, others):
    """The other arguments; groups of any number of features."""
    return {**others, **({"num_groups": None, "group_size": 1} if cls == "GroupNorm" else {})}


def make(cls, name, size, others):
    return getattr(liftnn, cls)(**{name: size}, **options(cls, others), rngs=liftnn.Rngs(0))


WITH_SEQUENCES = {
    "Conv": ((2, 3), {"kernel_size": (3, 2)}),
    "ConvTranspose": ((2, 3), {"kernel_size": (3, 2)}),
    "LinearGeneral": ((), {"in_features": (2, 3), "out_features": (4, 5), "axis": (-2, -1)}),
    "Einsum": (("ab,bc->ac",), {"kernel_shape": (2, 3), "bias_shape": (3,)}),
}


@pytest.mark.parametrize("sequence", [collections.UserList, np.array, list], ids=["user", "numpy", "list"])
@pytest.mark.parametrize("cls", WITH_SEQUENCES)
def test_sizes_are_any_sequence(cls, sequence):
    """Such as the ListConfig of OmegaConf, which is no list."""
    args, sizes = WITH_SEQUENCES[cls]
    expected = getattr(nnx, cls)(*args, **sizes, rngs=nnx.Rngs(0))
    layer = getattr(liftnn, cls)(
        *args, **{name: sequence(x) for name, x in sizes.items()}, rngs=liftnn.Rngs(0)
    )
    assert layer.kernel.shape == expected.kernel.shape
    assert layer.bias.shape == expected.bias.shape


def test_a_convolution_takes_any_sequences():
    x = jnp.ones((1, 8, 8, 2))
    sizes = {"kernel_size": (3, 2), "strides": (2, 1), "padding": ((1, 1), (0, 1)), "kernel_dilation": (1, 2)}
    expected = nnx.Conv(2, 3, **sizes, rngs=nnx.Rngs(0))(x)
    layer = liftnn.Conv(
        2, 3, **{name: collections.UserList(x) for name, x in sizes.items()}, rngs=liftnn.Rngs(0)
    )
    assert liftnn.jit(layer)(x).shape == expected.shape


@pytest.mark.parametrize("case", {**ONE, **SEVERAL}, ids=" ".join)
@pytest.mark.parametrize(
    "wrong, found",
    [
        (4.0, "a float: 4.0"),
        ("4", "a str: '4'"),
        (np.float32(4), "float32[]"),
        (jnp.ones(()), "float32[]"),
        ((4, 2.0), "a tuple: (4, 2.0)"),
    ],
    ids=["float", "str", "numpy", "jax", "tuple"],
)
def test_what_is_no_int_is_an_error_with_the_argument(case, wrong, found):
    cls, name = case
    with pytest.raises(errors.ArgumentTypeError) as caught:
        make(cls, name, wrong, {**ONE, **SEVERAL}[case])
    assert caught.value.cause == f"{name} of {cls} must be a size, not {found}."


@pytest.mark.parametrize("kind", [int, np.array, jnp.asarray])
@pytest.mark.parametrize("case", {**ONE, **SEVERAL}, ids=" ".join)
def test_a_negative_size_is_an_error_with_the_argument(case, kind):
    cls, name = case
    with pytest.raises(errors.ArgumentError) as caught:
        make(cls, name, kind(-4), {**ONE, **SEVERAL}[case])
    assert caught.value.cause == f"{name} of {cls} is -4, but a size is never negative."


@pytest.mark.parametrize("case", ONE, ids=" ".join)
def test_a_tuple_is_not_one_size(case):
    with pytest.raises(errors.ArgumentTypeError):
        make(*case, (8,), ONE[case])


@pytest.mark.parametrize("kind", [np.int64, np.array, jnp.asarray])
@pytest.mark.parametrize("case", {**ONE, **SEVERAL}, ids=" ".join)
@pytest.mark.sample(8)
def test_integers_of_numpy_and_jax_are_sizes(case, kind):
    others = {**ONE, **SEVERAL}[case]
    size = 3 if case == ("Einsum", "bias_shape") else 8
    if case == ("Einsum", "kernel_shape"):
        others = others | ZEROS
    expected, actual = (
        liftnn.state(make(*case, x, others), liftnn.Variable).to_pure_dict() for x in (size, kind(size))
    )
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("cls", NORMS)
def test_no_features_are_a_size_as_in_flax(cls):
    theirs = getattr(nnx, cls)(0, **options(cls, {}), rngs=nnx.Rngs(0))
    assert make(cls, "num_features", 0, {}).scale.shape == theirs.scale.shape == (0,)


def test_a_symbolic_dimension_is_a_size():
    def kernel(x):
        return liftnn.Linear(
            x.shape[0], 3, kernel_init=liftnn.initializers.zeros, rngs=liftnn.Rngs(0)
        ).kernel[...]

    (n,) = export.symbolic_shape("n")
    exported = export.export(jax.jit(kernel))(jax.ShapeDtypeStruct((n,), jnp.float32))
    np.testing.assert_array_equal(exported.call(jnp.ones(5)), np.zeros((5, 3), np.float32))


@pytest.mark.parametrize(
    "make, cls, text",
    [
        (
            lambda rngs: liftnn.LayerNorm((5, 4), rngs=rngs),
            errors.ArgumentTypeError,
            (
                "num_features of LayerNorm must be a size, not a tuple: (5, 4).\n"
                "Pass the product of the sizes along `feature_axes`, by default the size of the last axis. Write "
                "LayerNorm(20, reduction_axes=(-2, -1), feature_axes=(-2, -1)) for these axes."
            ),
        ),
        (
            lambda rngs: liftnn.InstanceNorm((4,), rngs=rngs),
            errors.ArgumentTypeError,
            (
                "num_features of InstanceNorm must be a size, not a tuple: (4,).\n"
                "Pass the product of the sizes along `feature_axes`, by default the size of the last axis."
            ),
        ),
        (
            lambda rngs: liftnn.BatchNorm((4,), rngs=rngs),
            errors.ArgumentTypeError,
            (
                "num_features of BatchNorm must be a size, not a tuple: (4,).\n"
                "Pass the size of the input along `axis`, by default the last one."
            ),
        ),
        (
            lambda rngs: liftnn.GroupNorm(None, rngs=rngs),
            errors.ArgumentTypeError,
            "num_features of GroupNorm must be a size, not None.\nPass the size of the input's last axis.",
        ),
        (
            lambda rngs: liftnn.Linear(-4, 3, rngs=rngs),
            errors.ArgumentError,
            "in_features of Linear is -4, but a size is never negative.\nPass an int, such as 8.",
        ),
        (
            lambda rngs: liftnn.Conv(2, 3, (3, 1.0), rngs=rngs),
            errors.ArgumentTypeError,
            (
                "kernel_size of Conv must be a size, not a tuple: (3, 1.0).\n"
                "Pass an int, or a tuple of ints such as (8, 8)."
            ),
        ),
    ],
)
def test_the_error_says_what_to_pass(make, cls, text):
    with raises(cls, text):
        make(liftnn.Rngs(0))


def test_the_layer_that_the_error_of_pytorchs_normalized_shape_names_normalizes_these_axes():
    x = jax.random.normal(jax.random.key(0), (3, 5, 4))
    layer = liftnn.LayerNorm(20, reduction_axes=(-2, -1), feature_axes=(-2, -1), rngs=liftnn.Rngs(0))
    expected = (x - x.mean((1, 2), keepdims=True)) / jnp.sqrt(x.var((1, 2), keepdims=True) + 1e-6)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
