from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.raising import raises

import liftnn
from liftnn import errors

OPTIONS = [
    {},
    {"n_steps": 3},
    {"n_steps": 0},
    {"epsilon": 0.1},
    {"update_stats": False},
    {"dtype": jnp.bfloat16},
    {"param_dtype": jnp.bfloat16},
]


def dense(library, rngs, **options):
    return library.Linear(4, 5, rngs=rngs, **options)


def conv(library, rngs, **options):
    return library.Conv(4, 5, 3, rngs=rngs, **options)


def pair(make, options, **layer_options):
    """The wrapped layer of both libraries, and what is drawn next."""
    layers, keys = [], []
    for library in (liftnn, nnx):
        rngs = library.Rngs(0)
        layers.append(library.SpectralNorm(make(library, rngs, **layer_options), rngs=rngs, **options))
        keys.append(np.asarray(jax.random.key_data(rngs())))
    np.testing.assert_array_equal(*keys)
    return layers


def assert_equal(ours, theirs):
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(np.asarray(ours, np.float32), np.asarray(theirs, np.float32))


def assert_same_state(ours, theirs):
    assert set(ours.batch_stats) == set(theirs.batch_stats)
    for path, statistic in ours.batch_stats.items():
        assert_equal(statistic.value, theirs.batch_stats[path][...])
        assert type(statistic) is liftnn.BatchStat
    for name in ("kernel", "bias"):
        assert_equal(getattr(ours.layer_instance, name).value, getattr(theirs.layer_instance, name)[...])


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types")  # by Flax
@pytest.mark.parametrize("make", [dense, conv])
@pytest.mark.parametrize("options", OPTIONS)
def test_outputs_weights_and_statistics_are_those_of_flax(make, options, rand):
    ours, theirs = pair(make, options)
    assert_same_state(ours, theirs)
    for call in ({}, {"update_stats": False}, {"update_stats": True}):
        assert_equal(ours(rand(2, 6, 4), **call), theirs(rand(2, 6, 4), **call))
        assert_same_state(ours, theirs)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types")
def test_weights_keep_their_dtype_as_in_flax(rand):
    ours, theirs = pair(dense, {}, param_dtype=jnp.bfloat16)
    assert_equal(ours(rand(2, 4)), theirs(rand(2, 4)))
    assert_same_state(ours, theirs)


@pytest.mark.thorough
def test_gradients_are_those_of_flax(rand, close):
    ours, theirs = pair(dense, {})
    mine = liftnn.grad(lambda layer: (layer(rand(2, 4)) ** 2).sum())(ours)
    flax = nnx.grad(lambda layer: (layer(rand(2, 4)) ** 2).sum())(theirs)
    for name in ("kernel", "bias"):
        close(mine["layer_instance"][name].value, flax["layer_instance"][name][...])
    assert_same_state(ours, theirs)


def test_statistics_are_updated_under_jit(rand, close):
    plain, jitted = pair(dense, {})[0], pair(dense, {})[0]
    step = liftnn.jit(lambda layer, x: layer(x))
    for _ in range(3):
        close(step(jitted, rand(2, 4)), plain(rand(2, 4)))
    close(jitted.batch_stats[("kernel", "u")].value, plain.batch_stats[("kernel", "u")].value)
    assert step.n_traces == 1


def test_train_and_eval_choose_whether_statistics_are_stored(rand):
    layer = pair(dense, {})[0]
    before = layer.batch_stats[("kernel", "u")].value
    layer.eval()
    layer(rand(2, 4))
    assert layer.batch_stats[("kernel", "u")].value is before
    layer.train()
    layer(rand(2, 4))
    assert not (layer.batch_stats[("kernel", "u")].value == before).all()


@pytest.mark.thorough
def test_statistics_of_a_model_are_drawn_in_the_order_of_paths(rand):
    class Ours(liftnn.Module):
        def __init__(self, rngs):
            self.z, self.a = liftnn.Linear(3, 3, rngs=rngs), liftnn.Linear(3, 3, rngs=rngs)

        def __call__(self, x):
            return self.z(self.a(x))

    class Theirs(nnx.Module):
        def __init__(self, rngs):
            self.z, self.a = nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)

        def __call__(self, x):
            return self.z(self.a(x))

    rngs, flax_rngs = liftnn.Rngs(0), nnx.Rngs(0)
    ours = liftnn.SpectralNorm(Ours(rngs), rngs=rngs)
    theirs = nnx.SpectralNorm(Theirs(flax_rngs), rngs=flax_rngs)
    assert_equal(ours(rand(2, 3)), theirs(rand(2, 3)))
    assert list(ours.batch_stats) == list(theirs.batch_stats)


def test_a_weight_that_is_not_a_matrix_can_be_an_error():
    with raises(
        errors.ArgumentError,
        "SpectralNorm with error_on_non_matrix=True needs matrices, but the shape of layer_instance.kernel is "
        "(3, 4, 5).\nPass error_on_non_matrix=False to normalize it as a matrix of shape (..., last axis).",
    ):
        pair(conv, {"error_on_non_matrix": True})


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ["SpectralNorm", "WeightNorm"])
def test_a_weight_that_was_added_later_is_an_error(name, rand):
    rngs = liftnn.Rngs(0)
    layer = getattr(liftnn, name)(liftnn.Sequential(liftnn.Linear(4, 4, rngs=rngs)), rngs=rngs)
    layer.layer_instance.layers.append(liftnn.Linear(4, 4, rngs=rngs))
    with raises(
        errors.StructureError,
        f"{name} has no entry for the weight layer_instance.layers[1].kernel: the wrapped layer did not have it when "
        f"the {name} was created.\nCreate the {name} again after you change the weights of the wrapped layer.",
    ):
        layer(rand(2, 4))


@pytest.mark.parametrize("name", ["SpectralNorm", "WeightNorm"])
def test_rngs_of_another_type_are_an_error(name):
    with pytest.raises(errors.ArgumentError, match=r"but rngs is of type ArrayImpl\.\n"):
        getattr(liftnn, name)(liftnn.Linear(4, 4, rngs=liftnn.Rngs(0)), rngs=jax.random.PRNGKey(0))


@pytest.mark.parametrize(
    "layer, found",
    [(3, "of type int"), (liftnn.relu, "the function relu"), (liftnn.Linear, "the class Linear")],
    ids=["int", "function", "class"],
)
def test_what_is_not_a_layer_is_refused(layer, found):
    with pytest.raises(errors.ArgumentTypeError) as info:
        liftnn.SpectralNorm(layer, rngs=liftnn.Rngs(0))
    assert str(info.value) == (
        f"SpectralNorm normalizes the weights of a layer, but layer_instance is {found}.\n"
        "Pass a layer, as in SpectralNorm(liftnn.Linear(2, 3, rngs=rngs), rngs=rngs)."
    )


def test_a_function_that_holds_a_layer_is_a_layer():
    rngs, x = liftnn.Rngs(0), jnp.ones((1, 2))
    layer = liftnn.Linear(2, 3, rngs=rngs)
    plain, held = liftnn.clone(layer), lambda x: layer(x)
    expected = liftnn.SpectralNorm(plain, rngs=liftnn.Rngs(1))(x)
    np.testing.assert_array_equal(liftnn.SpectralNorm(held, rngs=liftnn.Rngs(1))(x), expected)
