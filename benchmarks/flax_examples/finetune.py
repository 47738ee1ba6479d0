"""The network, the adapters and the step of examples/finetune in Flax NNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

CHUNK, CONTEXT, FEATURES = 512, 64, 128


class SileroVAD(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stft = nnx.Conv(1, 258, 256, strides=128, padding="VALID", use_bias=False, rngs=rngs)
        self.encoder = nnx.List(
            nnx.Conv(n, m, 3, strides=strides, padding=1, rngs=rngs)
            for n, m, strides in ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, FEATURES, 1))
        )
        self.rnn = nnx.OptimizedLSTMCell(FEATURES, FEATURES, rngs=rngs)
        self.output = nnx.Conv(FEATURES, 1, 1, rngs=rngs)

    def __call__(self, samples: jax.Array) -> jax.Array:
        count, length = samples.shape
        known = jnp.pad(samples, ((0, 0), (CONTEXT, 0)))
        starts = CHUNK * np.arange(length // CHUNK)
        chunks = known[:, starts[:, None] + np.arange(CONTEXT + CHUNK)].reshape(-1, CONTEXT + CHUNK)
        x = self.stft(jnp.pad(chunks, ((0, 0), (0, CONTEXT)), mode="reflect")[..., None])
        x = jnp.hypot(x[..., :129], x[..., 129:])
        for layer in self.encoder:
            x = nnx.relu(layer(x))
        zeros = jnp.zeros((count, FEATURES))
        scan = nnx.scan(
            lambda rnn, carry, x: rnn(carry, x), in_axes=(None, nnx.Carry, 1), out_axes=(nnx.Carry, 1)
        )
        return scan(self.rnn, (zeros, zeros), x.reshape(count, -1, FEATURES))[1]


class Classifier(nnx.Module):
    def __init__(self, backbone: SileroVAD, classes: int, *, rngs: nnx.Rngs) -> None:
        self.backbone = backbone
        self.head = nnx.Linear(FEATURES, classes, rngs=rngs)

    def __call__(self, samples: jax.Array) -> jax.Array:
        return self.head(self.backbone(samples).mean(axis=1))


class ConvLoRA(nnx.Module):
    def __init__(self, base_module: nnx.Conv, rank: int, *, rngs: nnx.Rngs) -> None:
        self.width, channels, features = base_module.kernel.shape
        self.base_module, self.strides = base_module, base_module.strides
        self.lora_a = nnx.LoRAParam(
            nnx.initializers.he_uniform()(rngs.params(), (self.width, channels, rank))
        )
        self.lora_b = nnx.LoRAParam(jnp.zeros((rank, features)))

    def __call__(self, x: jax.Array) -> jax.Array:
        padding = [(self.width // 2, self.width // 2)]
        low = jax.lax.conv_general_dilated(
            x, self.lora_a[...], (self.strides,), padding, dimension_numbers=("NWC", "WIO", "NWC")
        )
        return self.base_module(x) + low @ self.lora_b[...]


def adapt(network: SileroVAD, rank: int, *, rngs: nnx.Rngs) -> SileroVAD:
    def add(path: tuple[Any, ...], x: Any) -> Any:
        if isinstance(x, nnx.Conv) and path[0] == "encoder":
            return ConvLoRA(x, rank, rngs=rngs)
        if isinstance(x, nnx.Linear):
            return nnx.LoRA(x.in_features, rank, x.out_features, base_module=x, rngs=rngs)
        return x

    return nnx.recursive_map(add, network)


TRAINED = nnx.Any(nnx.LoRAParam, nnx.PathContains("head"))


def make_step(trained: Any) -> Callable[..., jax.Array]:
    def loss_fn(model: Classifier, samples: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(samples), labels).mean()

    @nnx.jit
    def train_step(
        model: Classifier, optimizer: nnx.Optimizer, samples: jax.Array, labels: jax.Array
    ) -> jax.Array:
        diff = nnx.DiffState(0, trained)
        loss, grads = nnx.value_and_grad(loss_fn, argnums=diff)(model, samples, labels)
        optimizer.update(model, grads)
        return loss

    return train_step
