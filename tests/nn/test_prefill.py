"""Decoding of several positions in one call, such as a prompt, gives what one position in each call gives."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from liftnn import errors

LENGTH, FEATURES = 5, 8
CACHE = ("cached_key", "cached_value", "cache_index")
SPLITS = [(5,), (3, 2), (1, 3, 1)]
X = jnp.sin(jnp.arange(2.0 * LENGTH * FEATURES)).reshape(2, LENGTH, FEATURES)


def make(**options):
    return liftnn.MultiHeadAttention(4, FEATURES, 32, rngs=liftnn.Rngs(0), **options)


def decode(layer, x, sizes, call=lambda layer, x, start: layer(x, decode=True)):
    """The outputs of decoding in parts of these sizes, with an empty cache of two more positions."""
    layer.init_cache((*x.shape[:-2], LENGTH + 2, FEATURES), x.dtype)
    outputs, start = [], 0
    for n in sizes:
        outputs.append(call(layer, x[..., start : start + n, :], start))
        start += n
    return jnp.concatenate(outputs, axis=-2)


def assert_like_single_steps(layer, x, sizes, *call, tolerance=1e-5):
    """Compare outputs and caches with those of one position in each call."""
    single = liftnn.clone(layer)
    actual, expected = decode(layer, x, sizes, *call), decode(single, x, [1] * LENGTH, *call)
    for a, b in [(actual, expected), *((getattr(layer, n).value, getattr(single, n).value) for n in CACHE)]:
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=tolerance, atol=tolerance
        )
    assert int(layer.cache_index) == LENGTH


@pytest.mark.parametrize("sizes", SPLITS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_kv_heads": 2, "normalize_qk": True},
        {"num_kv_heads": 1, "rotary_embedding": liftnn.rotary_embedding},
        {"rotary_embedding": functools.partial(liftnn.rotary_embedding, interleaved=True, base=100.0)},
    ],
)
@pytest.mark.part(2)
@pytest.mark.sample(4)
def test_parts_of_any_size_give_what_single_positions_give(options, sizes):
    assert_like_single_steps(make(**options), X, sizes)


@pytest.mark.parametrize("batch", [(), (3, 2)])
def test_other_batch_axes(batch):
    x = jnp.cos(jnp.arange(np.prod((*batch, LENGTH, FEATURES), dtype=float))).reshape(
        *batch, LENGTH, FEATURES
    )
    assert_like_single_steps(make(), x, (3, 2))


def test_bfloat16():
    layer = make(dtype=jnp.bfloat16, rotary_embedding=liftnn.rotary_embedding)
    assert_like_single_steps(layer, X.astype(jnp.bfloat16), (3, 2), tolerance=2e-2)


def test_compiled_parts_and_single_positions_share_a_function():
    step = liftnn.jit(lambda layer, x: layer(x, decode=True))
    assert_like_single_steps(make(), X, (3, 1, 1), lambda layer, x, start: step(layer, x))
    assert step.n_traces == 2


def test_a_mask_of_the_cache_excludes_positions():
    mask = jnp.ones((2, 1, 1, LENGTH + 2), bool).at[1, ..., 1].set(False)
    layer = make(rotary_embedding=liftnn.rotary_embedding)
    assert_like_single_steps(layer, X, (3, 2), lambda layer, x, start: layer(x, decode=True, mask=mask))


def test_a_mask_for_each_query():
    mask = jax.random.bernoulli(jax.random.key(0), 0.6, (2, 4, LENGTH, LENGTH + 2))
    mask |= jnp.eye(LENGTH, LENGTH + 2, dtype=bool)

    def call(layer, x, start):
        return layer(x, decode=True, mask=mask[..., start : start + x.shape[1], :])

    assert_like_single_steps(make(), X, (3, 2), call)


@pytest.mark.parametrize("batch", [(), (2,), (3, 2)])
@pytest.mark.parametrize("n_axes", range(4))
@pytest.mark.parametrize("size", [1, LENGTH])
@pytest.mark.sample(3)
def test_a_mask_of_fewer_axes_broadcasts_as_without_a_cache(batch, n_axes, size):
    x = jnp.broadcast_to(X[0], (*batch, LENGTH, FEATURES))
    shape = (4, size, LENGTH)[3 - n_axes :]
    mask = jnp.arange(np.prod(shape, dtype=int)).reshape(shape) % LENGTH != 2
    layer = make()
    expected = layer(x, mask=mask, is_causal=True)
    layer.init_cache(x.shape)
    np.testing.assert_allclose(layer(x, decode=True, mask=mask), expected, rtol=1e-5, atol=1e-5)


def test_a_mask_to_add_is_refused_with_a_cache_too():
    layer = make()
    layer.init_cache(X.shape)
    with pytest.raises(errors.ArgumentError, match="The attention mask has negative numbers"):
        layer(X, decode=True, mask=jnp.full((LENGTH, LENGTH), -jnp.inf))
    assert int(layer.cache_index) == 0


def test_given_positions_are_those_of_the_rotary_embedding():
    positions = jnp.array([[0, 1, 2, 0, 1], [3, 1, 4, 1, 5]])

    def call(layer, x, start):
        return layer(x, decode=True, input_positions=positions[:, start : start + x.shape[1]])

    assert_like_single_steps(make(rotary_embedding=liftnn.rotary_embedding), X, (3, 2), call)


def test_recorded_weights_are_causal():
    layer = make()
    assert_like_single_steps(
        layer, X, (3, 2), lambda layer, x, start: layer(x, decode=True, sow_weights=True)
    )
    first, second = layer.attention_weights.value
    after = jnp.arange(LENGTH + 2) > jnp.arange(LENGTH)[:, None]
    assert not jnp.where(after[:3], first, 0).any()
    assert not jnp.where(after[3:], second, 0).any()
    np.testing.assert_allclose(first.sum(-1), 1.0, rtol=1e-6)


def test_a_stack_takes_a_prompt_and_goes_on():
    stack = liftnn.Stack(3, lambda r: liftnn.MultiHeadAttention(2, FEATURES, rngs=r), rngs=liftnn.Rngs(0))
    decoders = [liftnn.view(stack, decode=True, batch_size=2, max_length=LENGTH) for _ in range(2)]
    parts = [decoders[0](X[:, :3]), decoders[0](X[:, 3:])]
    single = [decoders[1](X[:, i : i + 1]) for i in range(LENGTH)]
    np.testing.assert_allclose(jnp.concatenate(parts, 1), jnp.concatenate(single, 1), rtol=1e-5, atol=1e-6)
    for name in CACHE:
        ours, theirs = (getattr(decoder.layers, name).value for decoder in decoders)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_an_ensemble_takes_a_prompt():
    keys = jax.random.split(jax.random.key(0), 3)
    ensemble = liftnn.vmap(lambda key: liftnn.MultiHeadAttention(2, FEATURES, rngs=liftnn.Rngs(key)))(keys)
    ensemble.init_cache(X.shape)
    actual = liftnn.vmap(lambda model, x: model(x, decode=True), in_axes=(0, None))(ensemble, X)
    for y, key in zip(actual, keys, strict=True):
        expected = liftnn.MultiHeadAttention(2, FEATURES, rngs=liftnn.Rngs(key))(X, is_causal=True)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_gradients_of_a_prompt_are_those_of_the_causal_pass():
    layer = make(rotary_embedding=liftnn.rotary_embedding)
    layer.init_cache(X.shape)
    grads = liftnn.grad(lambda layer, x: jnp.sin(layer(x, decode=True)).sum())(layer, X)
    expected = liftnn.grad(lambda layer, x: jnp.sin(layer(x, is_causal=True)).sum())(layer, X)
    for path, g in expected.flat().items():
        np.testing.assert_allclose(grads.flat()[path].value, g.value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", [("data", None, None), ("data", "model", None), (None, "data", None)])
def test_a_prompt_on_a_mesh_with_explicit_axes(spec):
    mesh = jax.make_mesh((1, 1), ("data", "model"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        layer = make()
        layer.init_cache(X.shape)
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
        y = layer(jax.device_put(X, sharding), decode=True)
    np.testing.assert_allclose(y, make()(X, is_causal=True), rtol=1e-5, atol=1e-6)


def too_short(n, used):
    more = "position" if n == 1 else "positions"
    return (
        f"The cache of MultiHeadAttention is too short for {n} more {more}: it has 4{used}.\n"
        "Call init_cache with a larger length, or call it again to start over."
    )


def test_a_part_that_is_longer_than_the_rest_of_the_cache_is_refused_and_nan_under_jit():
    layer = make(decode=True)
    layer.init_cache((2, 4, FEATURES))
    layer(X[:, :3])
    before = [getattr(layer, name).value for name in CACHE]
    with pytest.raises(errors.ArgumentError) as info:
        layer(X[:, 3:])
    assert str(info.value) == too_short(2, ", and 3 of them are used")
    assert all(getattr(layer, name).value is x for name, x in zip(CACHE, before, strict=True))
    step = liftnn.jit(lambda layer, x: layer(x))
    assert jnp.isnan(step(layer, X[:, 3:])).all()
    assert jnp.isnan(step(layer, X[:, :1])).all()


def test_a_part_that_no_cache_of_this_length_takes_is_refused_under_jit():
    layer = make(decode=True)
    layer.init_cache((2, 4, FEATURES))
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.jit(lambda layer, x: layer(x))(layer, X)
    assert str(info.value) == too_short(5, "")


def test_queries_and_keys_of_different_lengths_are_refused():
    layer = make(decode=True)
    layer.init_cache((2, 4, FEATURES))
    with pytest.raises(errors.ArgumentError) as info:
        layer(X[:, :3], X[:, :1])
    assert str(info.value) == (
        "The cache of MultiHeadAttention has the shape (2, 4, 4, 8), so the inputs of 3 positions must give keys and "
        "values of shape (2, 3, 4, 8), but they give (2, 1, 4, 8).\n"
        "Call init_cache with the batch axes of the inputs, and pass queries, keys and values of the same length."
    )
