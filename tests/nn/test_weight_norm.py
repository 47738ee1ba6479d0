from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import liftnn
from liftnn import errors

OPTIONS = [
    {},
    {"feature_axes": None},
    {"feature_axes": 0},
    {"feature_axes": (0, -1)},
    {"use_scale": False},
    {"epsilon": 0.1},
    {"dtype": jnp.bfloat16},
    {"param_dtype": jnp.bfloat16},
    {"scale_init": liftnn.initializers.zeros},
]


def pair(options, **layer_options):
    """The wrapped layer of both libraries, and what is drawn next."""
    layers, keys = [], []
    for library in (liftnn, nnx):
        rngs = library.Rngs(0)
        inner = library.Conv(4, 5, 3, rngs=rngs, **layer_options)
        layers.append(library.WeightNorm(inner, rngs=rngs, **options))
        keys.append(np.asarray(jax.random.key_data(rngs())))
    np.testing.assert_array_equal(*keys)
    return layers


def assert_equal(ours, theirs):
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(np.asarray(ours, np.float32), np.asarray(theirs, np.float32))


def assert_same_state(ours, theirs):
    assert (ours.scales is None) == (theirs.scales is None)
    for path, scale in (ours.scales or {}).items():
        assert_equal(scale, theirs.scales[path])
    for name in ("kernel", "bias"):
        assert_equal(getattr(ours.layer_instance, name).value, getattr(theirs.layer_instance, name)[...])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.sample(10)
def test_outputs_and_weights_are_those_of_flax(options, rand):
    ours, theirs = pair(options)
    assert_same_state(ours, theirs)
    for _ in range(2):
        assert_equal(ours(rand(2, 6, 4)), theirs(rand(2, 6, 4)))
        assert_same_state(ours, theirs)


def test_dtypes_of_weights_are_those_of_flax(rand):
    for use_scale in (True, False):
        ours, theirs = pair({"use_scale": use_scale}, param_dtype=jnp.bfloat16)
        assert_equal(ours(rand(2, 6, 4)), theirs(rand(2, 6, 4)))
        assert_same_state(ours, theirs)


def test_scales_that_are_set_are_used_as_in_flax(rand):
    ours, theirs = pair({})
    for layer in (ours, theirs):
        layer.scales[("kernel",)] = jnp.arange(1.0, 6.0)
    assert_equal(ours(rand(2, 6, 4)), theirs(rand(2, 6, 4)))


def test_a_filter_selects_the_weights(rand):
    ours, theirs = pair(
        {"variable_filter": lambda path, x: path[-1] in ("kernel", "bias")}, bias_init=nnx.initializers.ones
    )
    assert_equal(ours(rand(2, 6, 4)), theirs(rand(2, 6, 4)))
    assert_same_state(ours, theirs)
    assert set(ours.scales) == {("kernel",), ("bias",)}


def test_scales_are_trained_as_the_paper_says(rand, close):
    """The gradient of g in w = g * v / |v|, and a step of SGD."""
    x, rngs = rand(6, 4), liftnn.Rngs(0)
    layer = liftnn.WeightNorm(liftnn.Linear(4, 5, use_bias=False, rngs=rngs), rngs=rngs)
    v = layer.layer_instance.kernel.value
    expected = jax.grad(lambda g: ((x @ (v / jnp.linalg.norm(v, axis=0) * g)) ** 2).sum())(jnp.ones(5))
    grads = liftnn.grad(lambda layer: (layer(x) ** 2).sum())(layer)
    close(grads["scales"]["kernel",].value, expected)
    liftnn.Optimizer(layer, optax.sgd(0.1)).update(layer, grads)
    close(layer.scales["kernel",].value, 1 - 0.1 * expected)


@pytest.mark.thorough
def test_gradients_are_those_of_flax(rand, close):
    ours, theirs = pair({})
    mine = liftnn.grad(lambda layer: (layer(rand(2, 6, 4)) ** 2).sum())(ours)
    flax = nnx.grad(lambda layer: (layer(rand(2, 6, 4)) ** 2).sum())(theirs)
    for name in ("kernel", "bias"):
        close(mine["layer_instance"][name].value, flax["layer_instance"][name][...])
    assert_same_state(ours, theirs)


def test_weights_are_written_under_jit(rand, close):
    plain, jitted = pair({})[0], pair({})[0]
    step = liftnn.jit(lambda layer, x: layer(x))
    for _ in range(2):
        close(step(jitted, rand(2, 6, 4)), plain(rand(2, 6, 4)))
    close(jitted.layer_instance.kernel.value, plain.layer_instance.kernel.value)
    assert step.n_traces == 1


def test_random_scales_draw_keys():
    rngs = liftnn.Rngs(0)
    inner = liftnn.Linear(4, 5, rngs=rngs)
    layer = liftnn.WeightNorm(inner, scale_init=liftnn.initializers.normal(), rngs=rngs)
    assert len(set(layer.scales[("kernel",)].value.tolist())) == 5
    assert int(rngs.default.count) == 3


def test_arguments_of_the_call_reach_the_layer(rand):
    rngs = liftnn.Rngs(0)
    layer = liftnn.WeightNorm(liftnn.Einsum("ab,bc->ac", (4, 5), rngs=rngs), rngs=rngs)
    assert layer(rand(2, 4), einsum_str="ab,bc->ca").shape == (5, 2)


def test_feature_axes_that_a_weight_does_not_have_are_an_error():
    with pytest.raises(errors.ArgumentError, match=r"needs axes \(3,\), but its input has 3 axes"):
        pair({"feature_axes": 3})


@pytest.mark.parametrize(
    "layer, found",
    [(3, "of type int"), (liftnn.relu, "the function relu"), (liftnn.Linear, "the class Linear")],
    ids=["int", "function", "class"],
)
def test_what_is_not_a_layer_is_refused(layer, found):
    with pytest.raises(errors.ArgumentTypeError) as info:
        liftnn.WeightNorm(layer, rngs=liftnn.Rngs(0))
    assert str(info.value) == (
        f"WeightNorm normalizes the weights of a layer, but layer_instance is {found}.\n"
        "Pass a layer, as in WeightNorm(liftnn.Linear(2, 3, rngs=rngs), rngs=rngs)."
    )


def test_a_function_that_holds_a_layer_is_a_layer():
    rngs, x = liftnn.Rngs(0), jnp.ones((1, 2))
    layer = liftnn.Linear(2, 3, rngs=rngs)
    plain, held = liftnn.clone(layer), lambda x: layer(x)
    expected = liftnn.WeightNorm(plain, rngs=liftnn.Rngs(1))(x)
    np.testing.assert_array_equal(liftnn.WeightNorm(held, rngs=liftnn.Rngs(1))(x), expected)
