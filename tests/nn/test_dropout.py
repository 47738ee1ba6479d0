from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.raising import raises

import liftnn
from liftnn import errors

TRACED_RATE = (
    "The rate of a Dropout must be a number, but it is an array that is being traced, which has no value yet.\n"
    "Set it to a Python number, such as 0.1: another number is another trace. For a rate that varies without a new "
    "trace, draw the mask with `jax.random.bernoulli`."
)


@pytest.mark.sample(2)
@pytest.mark.parametrize("seeds", [{"default": 0}, {"dropout": 3}, {"default": 1, "dropout": 2}])
@pytest.mark.parametrize("options", [{}, {"broadcast_dims": (1,)}, {"broadcast_dims": (0, -1)}])
def test_masks_are_those_of_flax_call_after_call(seeds, options, rand, close):
    ours = liftnn.Dropout(0.3, rngs=liftnn.Rngs(**seeds), **options)
    theirs = nnx.Dropout(0.3, rngs=nnx.Rngs(**seeds), **options)
    for _ in range(3):
        close(ours(rand(8, 5, 6)), theirs(rand(8, 5, 6)))


def test_two_layers_from_one_rngs_have_different_masks_the_same_as_in_flax(rand, close):
    ours, theirs = liftnn.Rngs(0), nnx.Rngs(0)
    first, second = (liftnn.Dropout(0.5, rngs=ours) for _ in range(2))
    flax_first, flax_second = (nnx.Dropout(0.5, rngs=theirs) for _ in range(2))
    close(first(rand(64)), flax_first(rand(64)))
    close(second(rand(64)), flax_second(rand(64)))
    assert not np.array_equal(first(jnp.ones(64)), second(jnp.ones(64)))


def test_another_stream_can_be_named(rand, close):
    seeds = {"dropout": 0, "noise": 1}
    ours = liftnn.Dropout(0.5, rng_collection="noise", rngs=liftnn.Rngs(**seeds))
    theirs = nnx.Dropout(0.5, rng_collection="noise", rngs=nnx.Rngs(**seeds))
    close(ours(rand(64)), theirs(rand(64)))


def test_a_stream_can_be_given_to_the_layer(rand, close):
    ours = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0)["default"])
    close(ours(rand(64)), nnx.Dropout(0.5, rngs=nnx.Rngs(0)["default"])(rand(64)))


@pytest.mark.parametrize("kind", ["rngs", "stream", "key"])
def test_a_source_of_keys_can_be_given_to_the_call(kind, rand, close):
    def source(library):
        rngs = library.Rngs(default=1, dropout=0)
        return {"rngs": rngs, "stream": rngs["dropout"], "key": jax.random.key(5)}[kind]

    ours, theirs = liftnn.Dropout(0.5, rngs=liftnn.Rngs(9)), nnx.Dropout(0.5, rngs=nnx.Rngs(9))
    close(ours(rand(64), rngs=source(liftnn)), theirs(rand(64), rngs=source(nnx)))


@pytest.mark.parametrize("make", [jnp.float32, liftnn.Variable], ids=["array", "Variable"])
def test_a_rate_that_is_set_to_an_array_acts_as_the_number_outside_of_traces_only(make, rand, close):
    layer, x = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0)), rand(64)
    layer.rate = make(0.25)
    close(layer(x), liftnn.Dropout(0.25, rngs=liftnn.Rngs(0))(x))
    with raises(errors.ArgumentTypeError, TRACED_RATE):
        liftnn.jit(layer)(x)


def test_a_rate_that_is_traced_is_an_error_in_the_constructor():
    with raises(errors.ArgumentTypeError, TRACED_RATE):
        liftnn.vmap(lambda rate: liftnn.Dropout(rate, rngs=liftnn.Rngs(0))(1.0))(jnp.array([0.1, 0.5]))


def test_a_rate_that_is_traced_is_an_error_in_attention(rand):
    layer, x = liftnn.MultiHeadAttention(2, 4, dropout_rate=0.5, rngs=liftnn.Rngs(0)), rand(1, 3, 4)
    layer.dropout_rate = jnp.float32(0.25)
    text = TRACED_RATE.replace("rate of a Dropout", "dropout_rate of a MultiHeadAttention")
    with raises(errors.ArgumentTypeError, text):
        liftnn.jit(layer)(x)

    def attend(rate):
        return liftnn.dot_product_attention(*[x[None]] * 3, dropout_rate=rate, dropout_rng=jax.random.key(0))

    with raises(
        errors.ArgumentTypeError, TRACED_RATE.replace("rate of a Dropout", "dropout_rate of attention")
    ):
        liftnn.jit(attend)(0.25)


@pytest.mark.parametrize("rate", [np.float64(0.5), np.float32(0.5), jnp.float32(0.5)])
def test_a_rate_of_numpy_or_jax_acts_as_the_number(rate, rand, close):
    layer, x = liftnn.Dropout(rate, rngs=liftnn.Rngs(0)), rand(64, dtype=jnp.bfloat16)
    expected = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))(x)
    close(liftnn.jit(layer)(x), expected)


@pytest.mark.sample(2)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_dtype_is_kept(dtype, rand, close):
    ours, theirs = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    close(ours(rand(64, dtype=dtype)), theirs(rand(64, dtype=dtype)))


def test_integers_become_floats():
    layer = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))
    assert set(layer(jnp.ones(64, int)).tolist()) == {0.0, 2.0}


@pytest.mark.thorough
def test_about_the_right_share_is_kept_and_the_mean_with_it():
    y = liftnn.Dropout(0.25, rngs=liftnn.Rngs(0))(jnp.ones(10_000))
    assert abs(float((y == 0).mean()) - 0.25) < 0.02
    assert abs(float(y.mean()) - 1) < 0.02


def test_eval_turns_it_off_and_train_on_again(rand):
    layer = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))
    x = rand(64)
    layer.eval()
    assert layer.deterministic is True
    assert layer(x) is x
    layer.train()
    assert layer.deterministic is False
    assert (layer(x) == 0).any()


def test_the_call_has_precedence_over_the_layer(rand):
    layer, x = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0)), rand(64)
    assert layer(x, deterministic=True) is x
    layer.eval()
    assert (layer(x, deterministic=False) == 0).any()


def test_turned_off_it_needs_and_takes_no_keys(rand):
    x = rand(4)
    assert liftnn.Dropout(0.5, deterministic=True)(x) is x
    assert liftnn.Dropout(0.0)(x) is x
    np.testing.assert_array_equal(liftnn.Dropout(1.0)(x), np.zeros(4))


def test_a_rate_of_one_has_a_gradient_of_zero(rand):
    np.testing.assert_array_equal(jax.grad(lambda x: liftnn.Dropout(1.0)(x).sum())(rand(4)), np.zeros(4))


def test_gradients_pass_where_the_mask_does():
    key = jax.random.key(0)
    layer = liftnn.Dropout(0.5)
    gradient = jax.grad(lambda x: layer(x, rngs=key).sum())(jnp.ones(64))
    np.testing.assert_array_equal(gradient, layer(jnp.ones(64), rngs=key))


def test_it_works_on_sharded_arrays():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        spec = jax.sharding.PartitionSpec("data", None)
        x = jax.device_put(jnp.ones((4, 2)), jax.sharding.NamedSharding(mesh, spec))
        assert jax.typeof(liftnn.Dropout(0.5)(x, rngs=jax.random.key(0))).sharding.spec == spec


@pytest.mark.parametrize(
    "make", [liftnn.Dropout, lambda r: liftnn.MultiHeadAttention(2, 4, dropout_rate=r, rngs=liftnn.Rngs(0))]
)
def test_layers_with_a_rate_that_is_a_constant_array_can_be_created_in_a_trace(make):
    rate = jnp.float32(0.5)
    layer = liftnn.jit(lambda: make(rate))()
    assert getattr(layer, "rate", None) == 0.5 or layer.dropout_rate == 0.5


def test_a_single_axis_can_be_given(rand, close):
    ours, theirs = (
        liftnn.Dropout(0.5, broadcast_dims=axes, rngs=liftnn.Rngs(0))(rand(4, 5)) for axes in (1, (1,))
    )
    close(ours, theirs)


def test_axes_that_the_input_does_not_have_are_refused(rand):
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.Dropout(0.5, broadcast_dims=(0, 2), rngs=liftnn.Rngs(0))(rand(4, 5))
    assert str(info.value) == (
        "The layer needs axes (0, 2), but its input has 2 axes.\n"
        "Pass an input with more axes, or create the layer with other axes."
    )


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.Dropout(rate)
    assert str(info.value) == (
        f"The rate of a Dropout must be a probability from 0 to 1, but it is {rate!r}.\n"
        "Pass the fraction of entries to set to zero, such as 0.1."
    )


def test_without_a_source_of_keys_it_is_refused(rand):
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.Dropout(0.5)(rand(4))
    assert str(info.value) == (
        "Dropout is enabled, but it has no random keys: rngs is None in both the layer and the call.\n"
        "Create the layer with rngs=liftnn.Rngs(0), pass rngs to the call, or disable dropout with eval()."
    )


def test_never_being_told_whether_it_is_on_is_refused(rand):
    with pytest.raises(errors.ArgumentError, match="Dropout needs deterministic, but it is None") as info:
        liftnn.Dropout(0.5, deterministic=None, rngs=liftnn.Rngs(0))(rand(4))
    assert "Call train() or eval() on the model" in str(info.value)


def test_a_seed_in_place_of_rngs_is_refused_by_the_layer_and_by_the_call(rand):
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.Dropout(0.5, rngs=0)
    assert str(info.value) == (
        "Dropout needs a liftnn.Rngs or one of its streams, but rngs is of type int.\n"
        "Pass rngs=liftnn.Rngs(0), where 0 is the seed."
    )
    with pytest.raises(errors.ArgumentError, match="one of its streams or a key, but rngs is of type int"):
        liftnn.Dropout(0.5)(rand(4), rngs=0)


def test_masks_inside_jit_are_those_outside_and_new_at_each_call(rand, close):
    plain, layer = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0)), liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))
    apply = liftnn.jit(lambda layer, x: layer(x))
    masks = [apply(layer, rand(64)) for _ in range(3)]
    for mask in masks:
        close(mask, plain(rand(64)))
    assert not np.array_equal(masks[0], masks[1])
    assert apply.n_traces == 1


def test_one_key_is_used_inside_value_and_grad():
    layer = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))
    liftnn.value_and_grad(lambda x, layer: layer(x).sum())(jnp.ones(4), layer)
    assert layer.rngs.count.value == 1


def test_elements_of_a_vmap_have_different_masks():
    layer = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))
    y = liftnn.vmap(lambda layer, x: layer(x), in_axes=(None, 0))(layer, jnp.ones((2, 64)))
    assert not np.array_equal(*y)
