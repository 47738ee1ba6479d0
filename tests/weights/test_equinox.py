"""`from_equinox`: liftnn's layers compute what those of `equinox.nn` compute with the same weights."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.user_modules import Holder

KEY = jax.random.key(0)
RNGS = liftnn.Rngs(0)
HIDDEN = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)


def numbers(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def randomized(module):
    """The module with random numbers in all arrays."""
    leaves, treedef = jax.tree.flatten(module)
    random = np.random.default_rng(0)
    leaves = [
        jnp.asarray(random.uniform(-0.5, 0.5, x.shape), x.dtype) if eqx.is_inexact_array(x) else x
        for x in leaves
    ]
    return jax.tree.unflatten(treedef, leaves)


def by_row(f, x):
    """The result of a function for each element of a batch."""
    return np.stack([np.asarray(f(row)) for row in x])


def channels_last(x):
    return np.moveaxis(x, 1, -1)


VECTORS, SEQUENCES, IMAGES = numbers(5, 4), numbers(2, 5, 8), numbers(2, 4, 5, 6)
LAYERS = {
    "Linear": (eqx.nn.Linear(4, 3, key=KEY), liftnn.Linear(4, 3, rngs=RNGS), VECTORS),
    "Linear without bias": (
        eqx.nn.Linear(4, 3, use_bias=False, key=KEY), liftnn.Linear(4, 3, use_bias=False, rngs=RNGS), VECTORS,
    ),
    "LayerNorm": (eqx.nn.LayerNorm(4), liftnn.LayerNorm(4, epsilon=1e-5, rngs=RNGS), VECTORS),
    "RMSNorm": (
        eqx.nn.RMSNorm(4, eps=1e-6, use_bias=False), liftnn.RMSNorm(4, epsilon=1e-6, rngs=RNGS), VECTORS,
    ),
    "PReLU": (eqx.nn.PReLU(0.3), liftnn.PReLU(), VECTORS),
    "Embedding": (eqx.nn.Embedding(7, 3, key=KEY), liftnn.Embed(7, 3, rngs=RNGS), np.arange(6)),
    "MLP": (
        eqx.nn.MLP(4, 3, 5, 2, key=KEY),
        Holder(layers=[liftnn.Linear(n, m, rngs=RNGS) for n, m in ((4, 5), (5, 5), (5, 3))]),
        VECTORS,
    ),
    "Sequential": (
        eqx.nn.Sequential([eqx.nn.Linear(4, 3, key=KEY), eqx.nn.Lambda(jnp.tanh), eqx.nn.LayerNorm(3)]),
        liftnn.Sequential(
            liftnn.Linear(4, 3, rngs=RNGS), jnp.tanh, liftnn.LayerNorm(3, epsilon=1e-5, rngs=RNGS)
        ),
        VECTORS,
    ),
    "Conv2d": (
        eqx.nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2, key=KEY),
        liftnn.Conv(4, 6, (3, 2), strides=2, padding=1, feature_group_count=2, rngs=RNGS),
        IMAGES,
    ),
    "ConvTranspose2d": (
        eqx.nn.ConvTranspose2d(4, 3, (3, 2), stride=2, key=KEY),
        liftnn.ConvTranspose(4, 3, (3, 2), strides=2, padding=((2, 2), (1, 1)), rngs=RNGS),
        IMAGES,
    ),
    "ConvTranspose2d as the transpose of a Conv": (
        eqx.nn.ConvTranspose2d(4, 3, (3, 2), stride=2, key=KEY),
        liftnn.ConvTranspose(4, 3, (3, 2), strides=2, padding="VALID", transpose_kernel=True, rngs=RNGS),
        IMAGES,
    ),
    "GroupNorm": (
        eqx.nn.GroupNorm(2, 4), liftnn.GroupNorm(4, num_groups=2, epsilon=1e-5, rngs=RNGS), IMAGES,
    ),
    "MultiheadAttention": (
        eqx.nn.MultiheadAttention(2, 8, use_query_bias=True, use_key_bias=True, use_value_bias=True,
                                  use_output_bias=True, key=KEY),
        liftnn.MultiHeadAttention(2, 8, rngs=RNGS),
        SEQUENCES,
    ),
    "MultiheadAttention without biases": (
        eqx.nn.MultiheadAttention(2, 8, key=KEY), liftnn.MultiHeadAttention(2, 8, use_bias=False, rngs=RNGS),
        SEQUENCES,
    ),
}  # fmt: skip


def call_theirs(layer, x):
    if isinstance(layer, eqx.nn.MultiheadAttention):
        return by_row(lambda row: layer(row, row, row), x)
    return by_row(layer, x)


def call_ours(layer, x):
    if isinstance(layer, Holder):
        return layer.layers[2](liftnn.relu(layer.layers[1](liftnn.relu(layer.layers[0](x)))))
    if x.ndim == 4:
        return np.moveaxis(np.asarray(layer(channels_last(x))), -1, 1)
    return layer(x)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.sample(14)
def test_a_layer_computes_what_that_of_equinox_computes(name):
    theirs, ours, x = LAYERS[name]
    theirs = randomized(theirs)
    assert not liftnn.from_equinox(ours, theirs)
    np.testing.assert_allclose(call_ours(ours, x), call_theirs(theirs, x), rtol=1e-5, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("cls", [liftnn.LSTMCell, liftnn.OptimizedLSTMCell])
def test_an_lstm_computes_what_that_of_equinox_computes(cls):
    theirs, ours, x = randomized(eqx.nn.LSTMCell(3, 4, key=KEY)), cls(3, 4, rngs=RNGS), numbers(2, 3)
    assert not liftnn.from_equinox(ours, theirs)
    expected = by_row(lambda i: theirs(x[i], (HIDDEN[i], HIDDEN[1 - i]))[0], range(2))
    (_, hidden), _ = ours((HIDDEN[::-1], HIDDEN), x)
    np.testing.assert_allclose(hidden, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.thorough
def test_a_gru_computes_what_that_of_equinox_computes():
    theirs, x = randomized(eqx.nn.GRUCell(3, 4, key=KEY)), numbers(2, 3)
    ours = liftnn.GRUCell(3, 4, use_hidden_bias=True, rngs=RNGS)
    assert not liftnn.from_equinox(ours, theirs)
    expected = by_row(lambda i: theirs(x[i], HIDDEN[i]), range(2))
    np.testing.assert_allclose(ours(HIDDEN, x)[1], expected, rtol=1e-5, atol=1e-5)


def test_a_gru_without_a_bias_of_the_hidden_state_reports_that_of_equinox():
    ours = liftnn.GRUCell(3, 4, rngs=RNGS)
    report = liftnn.from_equinox(ours, eqx.nn.GRUCell(3, 4, key=KEY), strict=False)
    assert report.unexpected == ("'bias_n': float32[4]",)


@pytest.mark.thorough
def test_the_statistics_of_a_batch_norm_are_in_the_state_of_equinox():
    theirs, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, "batch", mode="ema", momentum=0.9)
    x = numbers(5, 4)
    batched = jax.vmap(theirs, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    _, state = batched(x, state)
    ours = liftnn.BatchNorm(4, use_running_average=True, rngs=RNGS)
    assert not liftnn.from_equinox(ours, randomized(theirs), only=liftnn.Param)
    ours.mean.value, ours.var.value = state.get(theirs.ema_state_index)
    theirs = eqx.nn.inference_mode(randomized(theirs))
    expected, _ = jax.vmap(theirs, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)
    np.testing.assert_allclose(ours(x), expected, rtol=1e-5, atol=1e-5)


def test_rules_and_pytrees_of_arrays():
    ours = Holder(hidden=liftnn.Linear(2, 3, rngs=RNGS), scale=liftnn.Param(jnp.ones(3)))
    tree = {"linears": [{"weight": numbers(3, 2), "bias": numbers(3)}], "scale": numbers(3), "rate": 0.1}
    assert not liftnn.from_equinox(ours, tree, [("^hidden", "linears.0")])
    np.testing.assert_array_equal(ours.hidden.kernel.value, numbers(3, 2).T)


def test_what_differs_is_listed_and_nothing_changes():
    ours = Holder(linear=liftnn.Linear(2, 3, rngs=RNGS))
    before = np.asarray(ours.linear.kernel.value)
    with pytest.raises(liftnn.CheckpointError) as caught:
        liftnn.from_equinox(ours, {"linear": eqx.nn.Linear(5, 3, use_bias=False, key=KEY), "x": numbers(1)})
    assert str(caught.value).startswith(
        "The Equinox module does not fit the module:\n"
        "missing:\n"
        "  linear.bias: float32[3], from 'linear.bias'\n"
        "unexpected:\n"
        "  'x': float32[1]\n"
        "mismatched:\n"
        "  linear.kernel: float32[2,3] in the module, float32[5,3] from 'linear.weight': float32[3,5]\n"
    )
    np.testing.assert_array_equal(ours.linear.kernel.value, before)
