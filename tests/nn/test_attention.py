from __future__ import annotations

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.quick import quick

import liftnn
from liftnn import errors

PROJECTIONS = ("query", "key", "value", "out")
DTYPES = [jnp.float32, jnp.bfloat16]


def make_pair(*, num_heads=4, in_features=8, seeds=None, **options):
    """The layer of both libraries, with biases that are not zero, from the same seeds."""
    seeds = seeds or {"default": 0}
    options = {"bias_init": liftnn.initializers.normal(), "decode": False, **options}
    ours = liftnn.MultiHeadAttention(num_heads, in_features, **options, rngs=liftnn.Rngs(**seeds))
    return ours, nnx.MultiHeadAttention(num_heads, in_features, **options, rngs=nnx.Rngs(**seeds))


def params_of(model, library):
    """The values of the Params by path, as text."""
    if library is liftnn:
        return {str(path): x.value for path, x in liftnn.state(model, liftnn.Param).flat().items()}
    return {str(path): x[...] for path, x in nnx.to_flat_state(nnx.state(model, nnx.Param))}


def assert_same_state(mine, flax, identical):
    assert set(mine) == set(flax)
    for path, x in flax.items():
        identical(mine[path], x)


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", quick(DTYPES))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_kv_heads": 2},
        {"num_kv_heads": 1, "normalize_qk": True},
        {"qkv_features": 16, "out_features": 6, "use_bias": False},
        {"dtype": jnp.bfloat16, "normalize_qk": True},
        {"param_dtype": jnp.bfloat16},
        {"precision": "highest"},
        {
            "out_kernel_init": liftnn.initializers.normal(),
            "out_bias_init": liftnn.initializers.ones,
            "qkv_dot_general": jax.lax.dot_general,
            "out_dot_general_cls": lambda: jax.lax.dot_general,
        },
    ],
)
@pytest.mark.sample(18)
def test_weights_and_outputs_are_those_of_flax_bit_for_bit(options, dtype, rand, identical):
    ours, theirs = make_pair(**options)
    assert_same_state(params_of(ours, liftnn), params_of(theirs, nnx), identical)
    x = rand(2, 5, 8, dtype=dtype)
    identical(ours(x), theirs(x))
    mask = liftnn.make_causal_mask(x[..., 0])
    identical(ours(x, mask=mask), theirs(x, mask=mask))
    identical(ours(x, is_causal=True), theirs(x, is_causal=True))


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", quick(DTYPES))
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_cross_attention_is_that_of_flax_bit_for_bit(batch, dtype, rand, identical):
    ours, theirs = make_pair(in_kv_features=6, num_kv_heads=2)
    q, k = rand(*batch, 5, 8, dtype=dtype), rand(*batch, 7, 6, dtype=dtype)
    identical(ours(q, k), theirs(q, k))
    identical(ours(q, k, -k), theirs(q, k, -k))


@pytest.mark.thorough
@pytest.mark.parametrize("seeds", [{"default": 0}, {"params": 0, "dropout": 3}])
@pytest.mark.parametrize("options", [{}, {"broadcast_dropout": False, "num_kv_heads": 2}])
@pytest.mark.sample(6)
def test_dropout_is_that_of_flax_bit_for_bit_call_after_call(options, seeds, rand, identical):
    ours, theirs = make_pair(dropout_rate=0.4, deterministic=False, seeds=seeds, **options)
    x = rand(2, 5, 8)
    for _ in range(2):
        identical(ours(x), theirs(x))
    identical(ours(x, deterministic=True), theirs(x, deterministic=True))
    identical(ours(x, rngs=liftnn.Rngs(7)), theirs(x, rngs=nnx.Rngs(7)))
    identical(ours(x, rngs=liftnn.Rngs(7)), ours(x, rngs=liftnn.RngStream(7)))


def test_a_dropout_rate_that_is_an_array_acts_as_the_number(rand, close):
    rate = jnp.float32(0.5)
    layers = [
        liftnn.MultiHeadAttention(2, 8, dropout_rate=r, deterministic=False, rngs=liftnn.Rngs(0))
        for r in (rate, 0.5)
    ]
    close(*[liftnn.jit(layer)(rand(2, 3, 8)) for layer in layers])


@pytest.mark.parametrize("options", [{}, {"num_kv_heads": 2, "normalize_qk": True}, {"dropout_rate": 0.4}])
@pytest.mark.sample(4)
def test_gradients_are_those_of_flax_bit_for_bit(options, rand, identical):
    ours, theirs = make_pair(deterministic=False, **options)
    x = rand(2, 5, 8)
    mine = liftnn.grad(lambda model: jnp.sin(model(x, is_causal=True)).sum())(ours)
    flax = nnx.grad(lambda model: jnp.sin(model(x, is_causal=True)).sum())(theirs)
    mine = {str(path): g.value for path, g in mine.flat().items()}
    assert_same_state(mine, {str(path): g[...] for path, g in nnx.to_flat_state(flax)}, identical)


@pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")
def test_recorded_weights_are_those_of_flax_bit_for_bit(rand, identical):
    ours, theirs = make_pair(num_kv_heads=2)
    x = rand(2, 5, 8)
    identical(ours(x, sow_weights=True), theirs(x, sow_weights=True))
    (weights,) = ours.attention_weights.value
    identical(weights, theirs.attention_weights.get_value()[0])
    assert liftnn.pop(ours, liftnn.Intermediate)["attention_weights"].value[0].shape == (2, 4, 5, 5)


def test_arguments_and_defaults_are_those_of_flax():
    for method in ("__init__", "__call__", "init_cache"):
        ours = inspect.signature(getattr(liftnn.MultiHeadAttention, method)).parameters
        theirs = dict(inspect.signature(getattr(nnx.MultiHeadAttention, method)).parameters)
        later = {"rotary_embedding"} | (
            {"input_positions"} - set(theirs)
        )  # Flax 0.12.12 has added the positions
        assert [name for name in ours if name not in later] == list(theirs)
        for name, parameter in theirs.items():
            assert ours[name].kind == parameter.kind
            if not callable(parameter.default):
                assert ours[name].default == parameter.default


def test_metadata_goes_to_the_params():
    metadata = {
        "kernel_metadata": {"a": 1}, "bias_metadata": {"b": 1}, "out_kernel_metadata": {"a": 2},
        "query_ln_scale_metadata": {"s": 1}, "key_ln_scale_metadata": {"s": 2},
    }  # fmt: skip
    layer = liftnn.MultiHeadAttention(2, 8, normalize_qk=True, rngs=liftnn.Rngs(0), **metadata)
    assert [getattr(layer, name).kernel.a for name in PROJECTIONS] == [1, 1, 1, 2]
    assert [getattr(layer, name).bias.b for name in PROJECTIONS] == [1, 1, 1, 1]
    assert (layer.query_ln.scale.s, layer.key_ln.scale.s) == (1, 2)


@pytest.mark.thorough
def test_shardings_go_to_the_linear_functions():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    spec = jax.sharding.PartitionSpec
    with jax.set_mesh(mesh):
        layer = liftnn.MultiHeadAttention(2, 8, rngs=liftnn.Rngs(0))
        x = jax.device_put(jnp.ones((4, 3, 8)), jax.sharding.NamedSharding(mesh, spec("data", None, None)))
        y = layer(x, qkv_sharding=spec("data", None, None, None), out_sharding=spec("data", None, None))
    assert jax.typeof(y).sharding.spec == spec("data", None, None)


def test_the_attention_function_gets_the_arguments_of_dot_product_attention(rand, identical):
    calls = []

    def attend(query, key, value, **options):
        calls.append((query.shape, key.shape, options))
        return liftnn.dot_product_attention(query, key, value, **options)

    layer = liftnn.MultiHeadAttention(4, 8, num_kv_heads=2, attention_fn=attend, rngs=liftnn.Rngs(0))
    plain = liftnn.MultiHeadAttention(4, 8, num_kv_heads=2, rngs=liftnn.Rngs(0))
    x = rand(2, 5, 8)
    identical(layer(x, is_causal=True), plain(x, is_causal=True))
    [(query, key, options)] = calls
    assert (query, key) == ((2, 5, 4, 2), (2, 5, 2, 2))
    assert options["is_causal"] is True
    assert set(options) <= set(inspect.signature(liftnn.dot_product_attention).parameters)


def decode_all(layer, x, call=lambda layer, x: layer(x, decode=True)):
    """The outputs of decoding position by position, with an empty cache."""
    layer.init_cache(x.shape, x.dtype)
    return jnp.concatenate([call(layer, x[..., i : i + 1, :]) for i in range(x.shape[-2])], axis=-2)


@pytest.mark.sample(4)
@pytest.mark.parametrize("dtype", quick(DTYPES))
@pytest.mark.parametrize("options", [{}, {"num_kv_heads": 2, "normalize_qk": True}])
def test_decoding_is_that_of_flax_bit_for_bit(options, dtype, rand, identical):
    ours, theirs = make_pair(dtype=dtype, qkv_features=32, **options)
    x = rand(2, 4, 8, dtype=dtype)
    theirs.decode = True
    theirs.init_cache(x.shape, dtype)
    identical(decode_all(ours, x), jnp.concatenate([theirs(x[:, i : i + 1]) for i in range(4)], axis=1))
    for name in ("cached_key", "cached_value", "cache_index"):
        identical(getattr(ours, name).value, getattr(theirs, name)[...])


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", quick(DTYPES))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_kv_heads": 2, "normalize_qk": True},
        {"rotary_embedding": liftnn.rotary_embedding},
        {"rotary_embedding": functools.partial(liftnn.rotary_embedding, interleaved=True, base=100.0)},
    ],
)
@pytest.mark.sample(8)
def test_decoding_under_jit_gives_the_causal_pass_and_is_traced_once(options, dtype, rand, close):
    layer = liftnn.MultiHeadAttention(4, 8, 32, dtype=dtype, rngs=liftnn.Rngs(0), **options)
    x = rand(2, 4, 8, dtype=dtype)
    step = liftnn.jit(lambda layer, x: layer(x, decode=True))
    y = decode_all(layer, x, step)
    close(y, layer(x, is_causal=True))
    assert (step.n_traces, int(layer.cache_index)) == (1, 4)
    np.testing.assert_array_equal(decode_all(layer, x, step), y)


@pytest.mark.thorough
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_decoding_in_a_scan_gives_the_causal_pass(batch, rand, close):
    layer = liftnn.MultiHeadAttention(4, 8, decode=True, rngs=liftnn.Rngs(0))
    x = rand(*batch, 5, 8)
    layer.init_cache(x.shape)

    @liftnn.jit
    @functools.partial(liftnn.scan, in_axes=(None, -2), out_axes=-2)
    def run(layer, x):
        return layer(x[..., None, :])[..., 0, :]

    close(run(layer, x), layer(x, decode=False, is_causal=True))
    assert int(layer.cache_index) == 5


@pytest.mark.thorough
def test_a_prompt_can_be_decoded_by_a_captured_model_in_a_loop(rand, close):
    layer = liftnn.MultiHeadAttention(2, 8, rngs=liftnn.Rngs(0))
    x = rand(1, 4, 8)
    layer.init_cache(x.shape)
    y = liftnn.fori_loop(
        0,
        4,
        lambda i, y: jax.lax.dynamic_update_slice(
            y, layer(jax.lax.dynamic_slice(x, (0, i, 0), (1, 1, 8)), decode=True), (0, i, 0)
        ),
        jnp.zeros_like(x),
    )
    close(y, layer(x, is_causal=True))


@pytest.mark.thorough
def test_a_mask_of_the_cache_excludes_positions_in_decoding(rand, close):
    layer = liftnn.MultiHeadAttention(2, 8, rngs=liftnn.Rngs(0))
    x = rand(2, 4, 8)
    mask = jnp.array([[1, 1, 1, 1], [0, 1, 1, 1]], bool)[:, None, None, :]
    y = decode_all(layer, x, lambda layer, x: layer(x, decode=True, mask=mask))
    close(y[:, 1:], layer(x, mask=mask, is_causal=True)[:, 1:])


def test_is_causal_changes_nothing_in_decoding(rand, identical):
    layer = liftnn.MultiHeadAttention(2, 8, rngs=liftnn.Rngs(0))
    x = rand(2, 4, 8)
    y = decode_all(layer, x, lambda layer, x: layer(x, decode=True, is_causal=True))
    identical(y, decode_all(layer, x))


@pytest.mark.thorough
def test_rotary_embedding_is_applied_to_queries_and_keys(rand, identical):
    def attend(query, key, value, **options):
        query, key = liftnn.rotary_embedding(query), liftnn.rotary_embedding(key)
        return liftnn.dot_product_attention(query, key, value, **options)

    layer = liftnn.MultiHeadAttention(2, 8, rotary_embedding=liftnn.rotary_embedding, rngs=liftnn.Rngs(0))
    expected = liftnn.MultiHeadAttention(2, 8, attention_fn=attend, rngs=liftnn.Rngs(0))
    q, k = rand(2, 5, 8), rand(2, 7, 8)
    identical(layer(q, k), expected(q, k))


@pytest.mark.thorough
def test_given_positions_are_those_of_the_rotary_embedding(rand, identical):
    layer = liftnn.MultiHeadAttention(2, 8, rotary_embedding=liftnn.rotary_embedding, rngs=liftnn.Rngs(0))
    x, positions = rand(2, 5, 8), jnp.array([[0, 1, 2, 0, 1], [3, 1, 4, 1, 5]])
    identical(layer(x, input_positions=jnp.arange(5)), layer(x))

    def rotate(x, _):
        return liftnn.rotary_embedding(x, positions)

    fixed = liftnn.MultiHeadAttention(2, 8, rotary_embedding=rotate, rngs=liftnn.Rngs(0))
    identical(layer(x, input_positions=positions), fixed(x))
    layer.init_cache(x.shape)
    y = [layer(x[:, i : i + 1], decode=True, input_positions=positions[:, i : i + 1]) for i in range(5)]
    np.testing.assert_allclose(jnp.concatenate(y, 1), fixed(x, is_causal=True), rtol=1e-5, atol=1e-6)


def test_given_positions_are_passed_to_the_attention_function(rand):
    calls = []

    def attend(query, key, value, *, input_positions=None, **options):
        calls.append(input_positions)
        return liftnn.dot_product_attention(query, key, value, **options)

    layer = liftnn.MultiHeadAttention(2, 8, attention_fn=attend, rngs=liftnn.Rngs(0))
    positions = jnp.arange(5)
    layer(rand(2, 5, 8), input_positions=positions)
    layer(rand(2, 5, 8))
    assert calls[0] is positions
    assert calls[1] is None


def test_positions_that_nothing_takes_are_refused(rand):
    layer = liftnn.MultiHeadAttention(2, 8, rngs=liftnn.Rngs(0))
    with pytest.raises(errors.ArgumentError) as info:
        layer(rand(2, 5, 8), input_positions=jnp.arange(5))
    assert str(info.value) == (
        "MultiHeadAttention got input_positions, but it has nothing that depends on positions.\n"
        "Create the layer with rotary_embedding=liftnn.rotary_embedding, or with an attention_fn that takes "
        "input_positions."
    )


def test_positions_after_the_end_of_the_cache_are_refused_and_nan_under_jit(rand):
    layer = liftnn.MultiHeadAttention(2, 8, decode=True, rngs=liftnn.Rngs(0))
    x = rand(2, 1, 8)
    layer.init_cache((2, 2, 8))
    step = liftnn.jit(lambda layer, x: layer(x))
    assert [bool(jnp.isnan(step(layer, x)).all()) for _ in range(3)] == [False, False, True]
    with pytest.raises(errors.ArgumentError) as info:
        layer(x)
    assert str(info.value) == (
        "The cache of MultiHeadAttention is too short for 1 more position: it has 2, and 2 of them are used.\n"
        "Call init_cache with a larger length, or call it again to start over."
    )


def test_a_call_that_fails_leaves_the_cache_as_it_was():
    layer = liftnn.MultiHeadAttention(2, 8, decode=True, dropout_rate=0.5, rngs=liftnn.Rngs(0))
    layer.init_cache((2, 5, 8))
    for options in ({}, {"mask": jnp.ones((2, 1, 1, 3)), "deterministic": True}):
        with pytest.raises(errors.ArgumentError):
            layer(jnp.ones((2, 1, 8)), **options)
    assert int(layer.cache_index) == 0
    assert not layer.cached_key.value.any()


def test_decoding_without_a_cache_is_refused():
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.MultiHeadAttention(2, 8, decode=True, rngs=liftnn.Rngs(0))(jnp.ones((2, 1, 8)))
    assert str(info.value) == (
        "MultiHeadAttention decodes with a cache of keys and values, but it has none.\n"
        "Call init_cache((*batch, length, features)) first, where length is the largest number of positions."
    )


@pytest.mark.sample(2)
@pytest.mark.parametrize("shape", [(4, 1, 8), (1, 8)])
def test_inputs_that_do_not_fit_the_cache_are_refused(shape):
    layer = liftnn.MultiHeadAttention(2, 8, decode=True, rngs=liftnn.Rngs(0))
    layer.init_cache((2, 5, 8))
    with pytest.raises(errors.ArgumentError) as info:
        layer(jnp.ones(shape))
    assert str(info.value) == (
        "The cache of MultiHeadAttention has the shape (2, 5, 2, 4), so the inputs of 1 position must give keys and "
        f"values of shape (2, 1, 2, 4), but they give {(*shape[:-1], 2, 4)}.\n"
        "Call init_cache with the batch axes of the inputs, and pass queries, keys and values of the same length."
    )


def test_a_cache_of_another_dtype_is_refused():
    layer = liftnn.MultiHeadAttention(2, 8, decode=True, dtype=jnp.bfloat16, rngs=liftnn.Rngs(0))
    layer.init_cache((2, 5, 8))
    with pytest.raises(errors.ArgumentError) as info:
        layer(jnp.ones((2, 1, 8)))
    assert str(info.value) == (
        "The cache of MultiHeadAttention has dtype float32, but keys and values have bfloat16.\n"
        "Create the cache with init_cache(input_shape, dtype=jax.numpy.bfloat16)."
    )


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"num_heads": 3},
            (
                "MultiHeadAttention needs qkv_features to be a multiple of num_heads, but qkv_features is 8 and "
                "num_heads is 3.\n"
                "Pass a qkv_features that num_heads divides."
            ),
        ),
        (
            {"num_heads": 4, "num_kv_heads": 3},
            (
                "MultiHeadAttention needs num_heads to be a multiple of num_kv_heads, but num_heads is 4 and "
                "num_kv_heads is 3.\n"
                "Pass a num_heads that num_kv_heads divides."
            ),
        ),
        (
            {"num_heads": 2, "dropout_rate": 2.0},
            (
                "The dropout_rate of a MultiHeadAttention must be a probability from 0 to 1, but it is 2.0.\n"
                "Pass the fraction of entries to set to zero, such as 0.1."
            ),
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.MultiHeadAttention(in_features=8, rngs=liftnn.Rngs(0), **options)
    assert str(info.value) == message


@pytest.mark.parametrize("position, name", list(enumerate(["queries", "keys", "values"])))
def test_a_wrong_number_of_features_is_refused(position, name):
    inputs = [jnp.ones((2, 5, 8))] * 3
    inputs[position] = jnp.ones((2, 5, 6))
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.MultiHeadAttention(2, 8, rngs=liftnn.Rngs(0))(*inputs)
    assert str(info.value) == (
        f"This MultiHeadAttention computes {name} from inputs of shape (*batch, length, 8), but got shape (2, 5, 6).\n"
        "Create the layer with the input's number of features, or change the input."
    )


def test_values_without_keys_are_refused():
    x = jnp.ones((2, 5, 8))
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.MultiHeadAttention(2, 8, rngs=liftnn.Rngs(0))(x, inputs_v=x)
    assert str(info.value) == (
        "MultiHeadAttention got inputs_v, but inputs_k is None.\n"
        "Pass inputs_k alone for keys and values from one array, or both."
    )


def test_dropout_that_nobody_has_switched_on_or_off_is_refused_until_train_or_eval():
    layer = liftnn.MultiHeadAttention(2, 8, dropout_rate=0.5, rngs=liftnn.Rngs(0))
    x = jnp.ones((2, 5, 8))
    with pytest.raises(errors.ArgumentError) as info:
        layer(x)
    assert str(info.value) == (
        "The dropout of MultiHeadAttention needs deterministic, but it is None in both the layer and the call.\n"
        "Call train() or eval() on the model, or pass deterministic to the constructor or the call."
    )
    layer.train()
    assert not np.array_equal(layer(x), layer(x))
    layer.eval()
    np.testing.assert_array_equal(layer(x), layer(x))


def test_dropout_without_random_keys_is_refused():
    layer = liftnn.MultiHeadAttention(
        2, 8, dropout_rate=0.5, deterministic=False, keep_rngs=False, rngs=liftnn.Rngs(0)
    )
    assert layer.rngs is None
    with pytest.raises(errors.ArgumentError) as info:
        layer(jnp.ones((2, 5, 8)))
    assert str(info.value) == (
        "The dropout of MultiHeadAttention is enabled, but it has no random keys: rngs is None in both the layer and "
        "the call.\nCreate the layer with rngs=liftnn.Rngs(0), pass rngs to the call, or disable dropout with eval()."
    )
    assert layer(jnp.ones((2, 5, 8)), rngs=liftnn.Rngs(1)).shape == (2, 5, 8)
