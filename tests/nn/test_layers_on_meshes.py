"""Every layer on Auto and Explicit meshes of eight devices: outputs and gradients are those without a mesh."""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import liftnn

MESHES = {
    kind.name: jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)
    for kind in (AxisType.Auto, AxisType.Explicit)
}
ROWS = {"sharding": (None, "model")}
"""The last of two axes of a kernel over the axis `model`."""


def x(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tokens(*shape):
    return np.random.default_rng(0).integers(0, 12, shape)


def kernel(*names):
    return {"kernel_metadata": {"sharding": names}}


# No row has groups of features: on automatic axes, XLA doubles the gradient of such a kernel, in bare JAX too.
LAYERS = {
    "Linear": (lambda r: liftnn.Linear(6, 4, **kernel(None, "model"), rngs=r), (x(8, 6),)),
    "Linear, contracted": (lambda r: liftnn.Linear(6, 4, **kernel("model"), rngs=r), (x(8, 6),)),
    "Linear of three axes": (lambda r: liftnn.Linear(6, 4, **kernel(None, "model"), rngs=r), (x(8, 3, 6),)),
    "Linear, FSDP": (lambda r: liftnn.Linear(8, 4, **kernel("data", "model"), rngs=r), (x(8, 8),)),
    "LinearGeneral": (
        lambda r: liftnn.LinearGeneral(6, (4, 2), **kernel(None, "model"), rngs=r),
        (x(8, 3, 6),),
    ),
    "LinearGeneral, two axes in": (
        lambda r: liftnn.LinearGeneral((3, 6), 4, axis=(-2, -1), **kernel(None, None, "model"), rngs=r),
        (x(8, 3, 6),),
    ),
    "LinearGeneral, batch": (
        lambda r: liftnn.LinearGeneral(6, (4,), batch_axis={0: 8}, **kernel("data"), rngs=r),
        (x(8, 3, 6),),
    ),
    "Einsum": (
        lambda r: liftnn.Einsum("nta,hab->nthb", (4, 6, 2), (4, 2), **kernel("model"), rngs=r),
        (x(8, 3, 6),),
    ),
    "Einsum, batch": (
        lambda r: liftnn.Einsum("nta,nab->ntb", (8, 6, 4), (8, 4), **kernel("data", None, "model"), rngs=r),
        (x(8, 3, 6),),
    ),
    "Einsum, batch along another axis": (
        lambda r: liftnn.Einsum("nta,nab->ntb", (8, 6, 4), (8, 4), **kernel("model", None, "data"), rngs=r),
        (x(8, 3, 6),),
    ),
    "Linear, both contracted axes sharded": (
        lambda r: liftnn.Sequential(
            liftnn.Linear(6, 4, **kernel(None, "model"), rngs=r),
            liftnn.Linear(4, 6, **kernel("model"), rngs=r),
        ),
        (x(8, 6),),
    ),
    "Einsum, both contracted axes sharded": (
        lambda r: liftnn.Sequential(
            liftnn.Linear(6, 4, **kernel(None, "model"), rngs=r),
            liftnn.Einsum("...a,ab->...b", (4, 6), (6,), **kernel("model"), rngs=r),
        ),
        (x(8, 6),),
    ),
    "Embed, attend": (lambda r: Attend(r), (tokens(8, 3),)),
    "Embed": (
        lambda r: liftnn.Embed(12, 4, embedding_metadata={"sharding": (None, "model")}, rngs=r),
        (tokens(8, 3),),
    ),
    "Embed, vocabulary": (
        lambda r: liftnn.Embed(12, 4, embedding_metadata={"sharding": ("model", None)}, rngs=r),
        (tokens(8, 3),),
    ),
    "Embed, FSDP": (
        lambda r: liftnn.Embed(12, 4, embedding_metadata={"sharding": ("model", "data")}, rngs=r),
        (tokens(8, 3),),
    ),
    "Conv": (
        lambda r: liftnn.Conv(3, 4, (3, 3), **kernel(None, None, None, "model"), rngs=r),
        (x(8, 6, 6, 3),),
    ),
    "Conv, circular and strided": (
        lambda r: liftnn.Conv(2, 4, (3,), strides=2, padding="CIRCULAR", rngs=r),
        (x(8, 6, 2),),
    ),
    "Conv, causal": (lambda r: liftnn.Conv(2, 4, (3,), padding="CAUSAL", rngs=r), (x(8, 6, 2),)),
    "Conv, several batch axes": (lambda r: liftnn.Conv(2, 4, (3,), rngs=r), (x(8, 2, 6, 2),)),
    "ConvTranspose": (
        lambda r: liftnn.ConvTranspose(3, 4, (3, 3), strides=2, **kernel(None, None, None, "model"), rngs=r),
        (x(8, 4, 4, 3),),
    ),
    "ConvTranspose, circular": (
        lambda r: liftnn.ConvTranspose(3, 4, (3,), padding="CIRCULAR", rngs=r),
        (x(8, 4, 3),),
    ),
    "BatchNorm": (lambda r: liftnn.BatchNorm(4, rngs=r), (x(8, 4),)),
    "BatchNorm, mask": (lambda r: Masked(liftnn.BatchNorm(4, rngs=r)), (x(8, 4),)),
    "LayerNorm": (lambda r: liftnn.LayerNorm(4, scale_metadata={"sharding": ("model",)}, rngs=r), (x(8, 4),)),
    "RMSNorm": (lambda r: liftnn.RMSNorm(4, rngs=r), (x(8, 4),)),
    "GroupNorm": (lambda r: liftnn.GroupNorm(4, num_groups=2, rngs=r), (x(8, 3, 4),)),
    "InstanceNorm": (lambda r: liftnn.InstanceNorm(4, rngs=r), (x(8, 3, 4),)),
    "SpectralNorm": (
        lambda r: WithStatistics(
            liftnn.SpectralNorm(liftnn.Linear(6, 4, **kernel(None, "model"), rngs=r), rngs=r)
        ),
        (x(8, 6),),
    ),
    "WeightNorm": (
        lambda r: liftnn.WeightNorm(liftnn.Linear(6, 4, **kernel(None, "model"), rngs=r), rngs=r),
        (x(8, 6),),
    ),
    "attention": (
        lambda r: liftnn.MultiHeadAttention(
            2, 4, decode=False, **kernel(None, "model"), out_kernel_metadata={"sharding": ("model",)}, rngs=r
        ),
        (x(8, 3, 4),),
    ),
    "attention, causal": (
        lambda r: Causal(liftnn.MultiHeadAttention(2, 4, decode=False, **kernel(None, "model"), rngs=r)),
        (x(8, 3, 4),),
    ),
    "attention, masked": (
        lambda r: MaskedAttention(liftnn.MultiHeadAttention(2, 4, decode=False, rngs=r)),
        (x(8, 3, 4),),
    ),
    "attention, grouped and normalized": (
        lambda r: liftnn.MultiHeadAttention(4, 64, num_kv_heads=2, normalize_qk=True, decode=False, rngs=r),
        (x(8, 3, 64),),
    ),
    "attention, rotary": (
        lambda r: liftnn.MultiHeadAttention(
            2, 8, decode=False, rotary_embedding=liftnn.rotary_embedding, rngs=r
        ),
        (x(8, 3, 8),),
    ),
    "attention, decoding": (lambda r: Decoder(r), (x(8, 3, 4),)),
    "Dropout": (lambda r: WithWeight(liftnn.Dropout(0.5, rngs=r)), (x(8, 4),)),
    "Dropout, broadcast": (
        lambda r: WithWeight(liftnn.Dropout(0.5, broadcast_dims=(1,), rngs=r)),
        (x(8, 4),),
    ),
    "LoRA": (lambda r: liftnn.LoRA(6, 2, 4, rngs=r), (x(8, 6),)),
    "LoRALinear": (
        lambda r: liftnn.LoRALinear(6, 4, lora_rank=2, **kernel(None, "model"), rngs=r),
        (x(8, 6),),
    ),
    "PReLU": (lambda r: liftnn.PReLU(), (x(8, 4),)),
    "SimpleCell": (lambda r: liftnn.RNN(liftnn.SimpleCell(4, 6, rngs=r), rngs=r), (x(8, 3, 4),)),
    "GRUCell": (lambda r: liftnn.RNN(liftnn.GRUCell(4, 6, rngs=r), rngs=r), (x(8, 3, 4),)),
    "LSTMCell": (lambda r: liftnn.RNN(liftnn.LSTMCell(4, 6, rngs=r), rngs=r), (x(8, 3, 4),)),
    "OptimizedLSTMCell": (
        lambda r: liftnn.RNN(liftnn.OptimizedLSTMCell(4, 6, rngs=r), rngs=r),
        (x(8, 3, 4),),
    ),
    "RNN, reversed": (
        lambda r: liftnn.RNN(liftnn.GRUCell(4, 6, rngs=r), reverse=True, keep_order=True, rngs=r),
        (x(8, 3, 4),),
    ),
    "RNN, lengths": (lambda r: Lengths(liftnn.RNN(liftnn.GRUCell(4, 6, rngs=r), rngs=r)), (x(8, 3, 4),)),
    "RNN, lengths and carry": (
        lambda r: LastCarry(liftnn.RNN(liftnn.GRUCell(4, 6, rngs=r), reverse=True, rngs=r)),
        (x(8, 3, 4),),
    ),
    "Bidirectional": (
        lambda r: liftnn.Bidirectional(
            liftnn.RNN(liftnn.GRUCell(4, 6, rngs=r), rngs=r), liftnn.RNN(liftnn.GRUCell(4, 6, rngs=r), rngs=r)
        ),
        (x(8, 3, 4),),
    ),
    "Sequential": (
        lambda r: liftnn.Sequential(liftnn.Linear(6, 4, rngs=r), liftnn.relu, liftnn.Linear(4, 2, rngs=r)),
        (x(8, 6),),
    ),
    "Stack": (
        lambda r: Layers(r),
        (x(8, 4),),
    ),
    "pooling": (lambda r: Pools(), (x(8, 6, 6, 2),)),
}


class Around(liftnn.Module):
    """A module around a layer."""

    def __init__(self, layer):
        self.layer = layer


class WithWeight(Around):
    def __init__(self, layer):
        self.layer, self.w = layer, liftnn.Param(jnp.ones(()))

    def __call__(self, x):
        return self.w * self.layer(x)


class Masked(Around):
    def __call__(self, x):
        return self.layer(x, mask=jnp.arange(8)[:, None] % 3 > 0)


class WithStatistics(Around):
    def __call__(self, x):
        return self.layer(x, update_stats=True)


class Causal(Around):
    def __call__(self, x):
        return self.layer(x, is_causal=True)


class MaskedAttention(Around):
    def __call__(self, x):
        return self.layer(x, mask=jnp.arange(3) != 1)


class Lengths(Around):
    def __call__(self, x):
        return self.layer(x, seq_lengths=jnp.arange(8) % 3 + 1)


class LastCarry(Around):
    def __call__(self, x):
        return self.layer(x, seq_lengths=jnp.arange(8) % 3 + 1, return_carry=True)[0]


class Decoder(liftnn.Module):
    def __init__(self, rngs):
        self.layer = liftnn.MultiHeadAttention(2, 4, **kernel(None, "model"), rngs=rngs)

    def __call__(self, x):
        self.layer.init_cache(x.shape)
        return jnp.concatenate([self.layer(x[:, i : i + 1], decode=True) for i in range(x.shape[1])], 1)


class Attend(liftnn.Module):
    def __init__(self, rngs):
        self.table = liftnn.Embed(12, 4, embedding_metadata={"sharding": (None, "model")}, rngs=rngs)

    def __call__(self, x):
        return self.table.attend(self.table(x))


class Layers(liftnn.Module):
    def __init__(self, rngs):
        self.layers = liftnn.Stack(
            3, lambda rngs: liftnn.Linear(4, 4, **kernel("model"), rngs=rngs), rngs=rngs
        )

    def __call__(self, x):
        return self.layers(x)


class Pools(liftnn.Module):
    def __init__(self):
        self.w = liftnn.Param(jnp.ones(()))

    def __call__(self, x):
        y = self.w * liftnn.max_pool(x, (2, 2), strides=(2, 2))
        return liftnn.avg_pool(y, (2, 2)) + liftnn.min_pool(y, (2, 2))


def run(make, inputs):
    """The output of a layer, the gradients of its parameters and input, and its state afterwards."""
    layer = make(liftnn.Rngs(0, params=1, dropout=2))
    is_float = jnp.issubdtype(inputs[0].dtype, jnp.floating)

    def loss(layer, *inputs):
        y = layer(*inputs)
        return (y * jnp.cos(y)).mean(), y

    @liftnn.jit
    def both(layer, *inputs):
        argnums = (0, 1) if is_float else (0,)
        return liftnn.value_and_grad(loss, argnums=argnums, has_aux=True)(layer, *inputs)

    (_, y), grads = both(layer, *inputs)
    grads = [g.to_pure_dict() if isinstance(g, liftnn.State) else g for g in grads]
    return y, grads, liftnn.state(layer, liftnn.Not(liftnn.RngState)).to_pure_dict()


@pytest.mark.thorough
@pytest.mark.part(2)
@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.sample(106)
def test_a_layer_on_a_mesh_computes_what_it_computes_without(name, mesh):
    make, inputs = LAYERS[name]
    expected = run(make, inputs)
    with jax.set_mesh(mesh):
        placed = [jax.device_put(a, NamedSharding(mesh, P("data"))) for a in inputs]
        actual = run(make, placed)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected)


@pytest.mark.thorough
@pytest.mark.parametrize("is_set", [False, True], ids=["without set_mesh", "set_mesh"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.sample(7)
def test_an_eager_call_of_a_layer_takes_an_array_of_an_explicit_mesh(name, is_set):
    make, inputs = LAYERS[name]
    expected = make(liftnn.Rngs(0, params=1, dropout=2))(*inputs)
    mesh = MESHES["Explicit"]
    for spec in (P("data"), P()):
        placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a in inputs]
        with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
            actual = make(liftnn.Rngs(0, params=1, dropout=2))(*placed)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
        assert jax.typeof(actual).sharding.spec[0] == (spec[0] if spec else None)


# Where another axis than that of the batch is sharded, as by a layer before or for long sequences.
ALONG_ANOTHER_AXIS = {
    "Conv": (
        lambda r: liftnn.Conv(3, 4, (3, 3), **kernel(None, None, None, "model"), rngs=r),
        x(8, 6, 6, 3),
        1,
    ),
    "Conv, circular": (lambda r: liftnn.Conv(2, 4, 3, padding="CIRCULAR", rngs=r), x(8, 6, 2), 1),
    "Conv, mirrored": (lambda r: liftnn.Conv(2, 4, 3, padding="REFLECT", rngs=r), x(8, 6, 2), 1),
    "Conv, several batch axes": (lambda r: liftnn.Conv(2, 4, 3, rngs=r), x(4, 2, 6, 2), 1),
    "ConvTranspose": (lambda r: liftnn.ConvTranspose(2, 4, 3, padding="CIRCULAR", rngs=r), x(8, 6, 2), 1),
    "GroupNorm": (lambda r: liftnn.GroupNorm(8, num_groups=4, rngs=r), x(8, 3, 8), 2),
    "GroupNorm after Linear": (
        lambda r: liftnn.Sequential(
            liftnn.Linear(4, 8, **kernel(None, "model"), rngs=r), liftnn.GroupNorm(8, num_groups=4, rngs=r)
        ),
        x(8, 4),
        0,
    ),
    "Dropout, first axis": (
        lambda r: WithWeight(liftnn.Dropout(0.5, broadcast_dims=(0,), rngs=r)),
        x(8, 4),
        0,
    ),
    "Dropout, last axis": (
        lambda r: WithWeight(liftnn.Dropout(0.5, broadcast_dims=(-1,), rngs=r)),
        x(8, 4),
        1,
    ),
    "attention": (lambda r: liftnn.MultiHeadAttention(2, 4, rngs=r), x(8, 6, 4), 1),
    "attention, causal": (lambda r: Causal(liftnn.MultiHeadAttention(2, 4, rngs=r)), x(8, 6, 4), 1),
    "attention, grouped": (lambda r: liftnn.MultiHeadAttention(4, 8, num_kv_heads=2, rngs=r), x(8, 6, 8), 1),
    "attention, dropout": (
        lambda r: liftnn.MultiHeadAttention(2, 4, dropout_rate=0.5, deterministic=False, rngs=r),
        x(8, 6, 4),
        1,
    ),
    "RNN": (lambda r: liftnn.RNN(liftnn.GRUCell(4, 6, rngs=r), rngs=r), x(8, 4, 4), 1),
    "RNN, reversed": (
        lambda r: liftnn.RNN(liftnn.LSTMCell(4, 6, rngs=r), reverse=True, rngs=r),
        x(8, 4, 4),
        1,
    ),
}


@pytest.mark.parametrize("name", ALONG_ANOTHER_AXIS)
@pytest.mark.sample(5)
def test_any_axis_of_the_input_may_be_sharded_on_a_mesh_with_explicit_axes(name):
    make, array, axis = ALONG_ANOTHER_AXIS[name]
    expected, mesh = run(make, [array]), MESHES["Explicit"]
    with jax.set_mesh(mesh):
        actual = run(make, [jax.device_put(array, NamedSharding(mesh, P(*[None] * axis, "model")))])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected)


STATISTICS = {
    "BatchNorm": lambda r: liftnn.BatchNorm(8, rngs=r),
    "SpectralNorm": lambda r: liftnn.SpectralNorm(
        liftnn.Linear(8, 8, **kernel(None, "model"), rngs=r), rngs=r
    ),
    "WeightNorm": lambda r: liftnn.WeightNorm(liftnn.Linear(8, 8, **kernel(None, "model"), rngs=r), rngs=r),
}


@pytest.mark.parametrize("axis", [None, "data", "model"])
@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_stay_where_they_are_so_a_step_is_traced_once(name, axis):
    def place(path, stat):
        return jax.device_put(stat, NamedSharding(MESHES["Explicit"], P(*[None] * (stat.ndim - 1), axis)))

    def shardings():
        return {path: jax.typeof(x.value) for path, x in liftnn.state(layer).flat().items()}

    with jax.set_mesh(MESHES["Explicit"]):
        first = liftnn.Linear(8, 8, **kernel(None, "model"), rngs=liftnn.Rngs(0))
        layer = liftnn.Sequential(first, STATISTICS[name](liftnn.Rngs(0)))
        stats = liftnn.state(layer, liftnn.BatchStat)
        liftnn.update(layer, stats.map(lambda path, x: place(path, x.value) if x.ndim else x.value))
        before, step = shardings(), liftnn.jit(lambda layer, x: layer(x))
        for _ in range(2):
            step(layer, jnp.ones((8, 8)))
        assert (shardings(), step.n_traces) == (before, 1)


@pytest.mark.parametrize(
    "spec", [P(), P("data"), P("model"), P(None, "data"), P(None, None, "model")], ids=str
)
def test_a_cache_stays_where_it_is_also_in_a_loop(spec):
    def decode(layer, xs):
        return liftnn.scan(
            lambda layer, x: (layer, layer(x)), in_axes=(liftnn.Carry, 0), out_axes=(liftnn.Carry, 0)
        )(layer, xs)[1]

    def make():
        layer = liftnn.MultiHeadAttention(2, 4, decode=True, **kernel(None, "model"), rngs=liftnn.Rngs(0))
        layer.init_cache((8, 4, 4))
        return layer

    xs = x(3, 8, 1, 4)
    expected = liftnn.jit(decode)(make(), xs)
    with jax.set_mesh(MESHES["Explicit"]):
        layer = make()
        for cached in (layer.cached_key, layer.cached_value):
            cached.value = jax.device_put(cached.value, NamedSharding(MESHES["Explicit"], spec))
        before = jax.typeof(layer.cached_key.value)
        step = liftnn.jit(decode)
        actual = step(layer, jax.device_put(xs, NamedSharding(MESHES["Explicit"], P(None, "data"))))
        assert jax.typeof(layer.cached_key.value) == before
        layer.cache_index.value = jnp.zeros_like(layer.cache_index.value)
        step(layer, jax.device_put(xs, NamedSharding(MESHES["Explicit"], P(None, "data"))))
        assert step.n_traces == 1
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


LOSSES = {
    "integer labels": lambda y: optax.softmax_cross_entropy_with_integer_labels(y, jnp.arange(8) % 4),
    "one hot": lambda y: optax.softmax_cross_entropy(y, liftnn.one_hot(jnp.arange(8) % 4, 4)),
    "squares": lambda y: optax.l2_loss(y, jnp.ones((8, 4))),
    "sigmoid": lambda y: optax.sigmoid_binary_cross_entropy(y, jnp.ones((8, 4))),
    "log_softmax": lambda y: -(liftnn.log_softmax(y) * liftnn.one_hot(jnp.arange(8) % 4, 4)).sum(-1),
    "accuracy": lambda y: y.mean() + (y.argmax(-1) == jnp.arange(8) % 4).mean(),
}


@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.sample(12)
def test_a_loss_on_a_mesh_has_the_value_and_the_gradient_that_it_has_without(name, mesh):
    step = jax.value_and_grad(lambda y: LOSSES[name](y).mean())
    expected = jax.jit(step)(x(8, 4))
    with jax.set_mesh(mesh):
        actual = jax.jit(step)(jax.device_put(x(8, 4), NamedSharding(mesh, P("data"))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), actual, expected)
