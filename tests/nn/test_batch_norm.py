from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn
from liftnn import errors

OPTIONS = [
    {},
    {"momentum": 0.5, "epsilon": 0.1},
    {"use_bias": False},
    {"use_scale": False},
    {"use_scale": False, "use_bias": False},
    {"use_fast_variance": False},
    {"dtype": jnp.bfloat16},
    {"param_dtype": jnp.bfloat16},
]


def assert_same_averages(ours, theirs, close):
    close(ours.mean.value, theirs.mean[...])
    close(ours.var.value, theirs.var[...])


@pytest.mark.thorough
@pytest.mark.parametrize("options", OPTIONS)
def test_training_gives_outputs_averages_and_gradients_of_flax(
    options, agrees_with_flax, rand, close, drawn_norm
):
    x = 3 + 2 * rand(4, 5, 6)
    ours, theirs = agrees_with_flax("BatchNorm", 6, x=x, grad=True, **drawn_norm, **options)
    assert_same_averages(ours, theirs, close)
    close(ours(2 * x), theirs(2 * x))
    assert_same_averages(ours, theirs, close)


@pytest.mark.sample(2)
@pytest.mark.parametrize("options", OPTIONS)
def test_evaluation_gives_outputs_of_flax_and_changes_nothing(
    options, agrees_with_flax, rand, close, drawn_norm
):
    x = 3 + 2 * rand(4, 5, 6)
    ours, theirs = agrees_with_flax("BatchNorm", 6, x=x, **drawn_norm, **options)
    before = ours.mean.value, ours.var.value
    close(ours(x, use_running_average=True), theirs(x, use_running_average=True))
    assert ours.mean.value is before[0]
    assert ours.var.value is before[1]


@pytest.mark.sample(3)
@pytest.mark.parametrize("axis", [0, 1, -2])
def test_the_feature_axis_can_be_any(axis, agrees_with_flax, rand, close):
    ours, theirs = agrees_with_flax("BatchNorm", rand(4, 5, 6).shape[axis], axis=axis, x=rand(4, 5, 6))
    assert_same_averages(ours, theirs, close)


@pytest.mark.sample(3)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32])
def test_averages_stay_float32_and_results_have_the_dtype_of_flax(dtype, agrees_with_flax, rand, close):
    ours, theirs = agrees_with_flax("BatchNorm", 6, x=(4 * rand(8, 6)).astype(dtype))
    assert ours.mean.value.dtype == ours.var.value.dtype == jnp.float32
    assert_same_averages(ours, theirs, close)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("dtype", [bool, jnp.float32])
def test_what_the_mask_leaves_out_does_not_count(fast, dtype, agrees_with_flax, rand, close):
    mask = (jnp.arange(4) < 3).astype(dtype)[:, None, None]
    ours, theirs = agrees_with_flax(
        "BatchNorm", 6, x=rand(4, 5, 6), call={"mask": mask.astype(bool)}, use_fast_variance=fast
    )
    assert_same_averages(ours, theirs, close)
    alone = liftnn.BatchNorm(6, use_fast_variance=fast, rngs=liftnn.Rngs(0))
    alone(rand(4, 5, 6)[:3])
    close(ours.mean.value, alone.mean.value)


def test_averages_start_at_zero_and_one():
    layer = liftnn.BatchNorm(3, rngs=liftnn.Rngs(0))
    np.testing.assert_array_equal(layer.mean.value, [0, 0, 0])
    np.testing.assert_array_equal(layer.var.value, [1, 1, 1])
    assert type(layer.mean) is type(layer.var) is liftnn.BatchStat
    assert type(layer.scale) is type(layer.bias) is liftnn.Param


@pytest.mark.thorough
def test_a_named_axis_is_averaged_over_as_well(rand, close):
    whole, part = (
        liftnn.BatchNorm(6, rngs=liftnn.Rngs(0)),
        liftnn.BatchNorm(6, axis_name="d", rngs=liftnn.Rngs(0)),
    )
    x = rand(8, 6)

    def normalize(x):
        layer = liftnn.BatchNorm(6, axis_name="d", rngs=liftnn.Rngs(0))
        return layer(x), layer.mean.value, layer.var.value

    y, mean, var = jax.vmap(normalize, axis_name="d")(x.reshape(2, 4, 6))
    close(y.reshape(8, 6), whole(x))
    close(mean[0], whole.mean.value)
    close(var[1], whole.var.value)
    assert part.axis_name == "d"


def test_a_named_axis_gives_the_numbers_of_flax_for_both_variances(rand, close):
    def normalize(library, fast):
        def run(x):
            layer = library.BatchNorm(6, axis_name="d", use_fast_variance=fast, rngs=library.Rngs(0))
            return layer(x), layer.var[...]

        return jax.vmap(run, axis_name="d")(rand(2, 4, 6))

    for fast in (True, False):
        jax.tree.map(close, normalize(liftnn, fast), normalize(nnx, fast))


def test_train_and_eval_choose_the_statistics(rand):
    layer = liftnn.BatchNorm(6, rngs=liftnn.Rngs(0))
    layer.eval()
    assert layer.use_running_average is True
    layer(rand(4, 6))
    np.testing.assert_array_equal(layer.mean.value, np.zeros(6))
    layer.train()
    assert layer.use_running_average is False
    layer(rand(4, 6))
    assert np.all(layer.mean.value != 0)


def test_the_call_has_precedence_over_the_layer(rand):
    layer = liftnn.BatchNorm(6, use_running_average=True, rngs=liftnn.Rngs(0))
    layer(rand(4, 6), False)
    assert np.all(layer.mean.value != 0)


def test_no_gradient_goes_through_the_running_averages(rand):
    def loss(x):
        layer = liftnn.BatchNorm(6, rngs=liftnn.Rngs(0))
        layer(x)
        return layer.mean.value.sum() + layer.var.value.sum()

    np.testing.assert_array_equal(jax.grad(loss)(rand(4, 6)), np.zeros((4, 6)))


def test_a_constant_batch_gives_zeros_and_no_nan(agrees_with_flax):
    ours, _ = agrees_with_flax("BatchNorm", 2, x=jnp.full((3, 2), 1e4), grad=False)
    assert np.isfinite(ours.var.value).all()


@pytest.mark.thorough
def test_complex_inputs_give_real_variances_over_a_named_axis_too(rand):
    x = jax.lax.complex(rand(2, 4, 3), rand(2, 4, 3)[::-1])

    def run(x):
        layer = liftnn.BatchNorm(3, axis_name="d", rngs=liftnn.Rngs(0))
        layer(x)
        return layer.var.value

    assert not jnp.iscomplexobj(jax.vmap(run, axis_name="d")(x))


@pytest.mark.thorough
def test_complex_averages_keep_their_imaginary_part(rand):
    x = jax.lax.complex(rand(4, 3), 1 + rand(4, 3))
    layer = liftnn.BatchNorm(3, momentum=0.0, rngs=liftnn.Rngs(0))
    layer(x)
    np.testing.assert_allclose(layer.mean.value, x.mean(0), rtol=1e-6)


def test_averages_keep_the_dtype_that_they_are_given(rand):
    layer = liftnn.BatchNorm(6, rngs=liftnn.Rngs(0))
    layer.mean.value = layer.mean.value.astype(jnp.bfloat16)
    layer(rand(4, 6))
    assert layer.mean.value.dtype == jnp.bfloat16


def test_a_wrong_number_of_features_is_refused_and_changes_nothing():
    layer = liftnn.BatchNorm(3, rngs=liftnn.Rngs(0))
    with pytest.raises(errors.ArgumentError) as info:
        layer(jnp.ones((4, 1)))
    assert str(info.value) == (
        "This BatchNorm expects 3 input features, but its input of shape (4, 1) has 1 along axis 1.\n"
        "Create the layer with the input's number of features, or change the input."
    )
    np.testing.assert_array_equal(layer.mean.value, np.zeros(3))


def test_never_being_told_which_statistics_to_use_is_refused():
    layer = liftnn.BatchNorm(3, use_running_average=None, rngs=liftnn.Rngs(0))
    with pytest.raises(errors.ArgumentError) as info:
        layer(jnp.ones((4, 3)))
    assert str(info.value) == (
        "BatchNorm needs use_running_average, but it is None in both the layer and the call.\n"
        "Call train() or eval() on the model, or pass use_running_average to the constructor or the call."
    )


def test_averages_move_once_inside_value_and_grad_inside_jit(rand, close):
    plain, layer = liftnn.BatchNorm(6, rngs=liftnn.Rngs(0)), liftnn.BatchNorm(6, rngs=liftnn.Rngs(0))

    @liftnn.jit
    def step(layer, x):
        return liftnn.value_and_grad(lambda layer: (layer(x) ** 3).sum())(layer)

    for scale in (1, 2, 3):
        step(layer, scale * rand(4, 6))
        plain(scale * rand(4, 6))
    close(layer.mean.value, plain.mean.value)
    close(layer.var.value, plain.var.value)
    assert step.n_traces == 1


def test_train_and_eval_compile_once_each(rand):
    layer, apply = liftnn.BatchNorm(6, rngs=liftnn.Rngs(0)), liftnn.jit(lambda layer, x: layer(x))
    for _ in range(3):
        layer.train()
        apply(layer, rand(4, 6))
        layer.eval()
        apply(layer, rand(4, 6))
    assert apply.n_traces == 2


def test_elements_of_a_vmap_share_averages_over_a_named_axis(rand, close):
    layer, whole = (
        liftnn.BatchNorm(6, axis_name="d", rngs=liftnn.Rngs(0)),
        liftnn.BatchNorm(6, rngs=liftnn.Rngs(0)),
    )
    x = rand(8, 6)
    y = liftnn.vmap(lambda layer, x: layer(x), in_axes=(None, 0), axis_name="d")(layer, x.reshape(2, 4, 6))
    close(y.reshape(8, 6), whole(x))
    close(layer.var.value, whole.var.value)


@pytest.mark.thorough
def test_a_vmap_without_a_named_axis_refuses_to_share_averages_and_changes_nothing(rand):
    layer = liftnn.BatchNorm(6, rngs=liftnn.Rngs(0))
    with pytest.raises(errors.SharedWriteError, match=r"args\[0\].mean \(a BatchStat\) is shared by all"):
        liftnn.vmap(lambda layer, x: layer(x), in_axes=(None, 0))(layer, rand(2, 4, 6))
    np.testing.assert_array_equal(layer.mean.value, np.zeros(6))
