"""The GRU and the step of examples/rnn_forecast in Flax NNX."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

Hidden = list[jax.Array]
DAY = 24


class Normal(NamedTuple):
    mean: jax.Array
    deviation: jax.Array

    def log_density(self, values: jax.Array) -> jax.Array:
        z = (jnp.asarray(values) - self.mean) / self.deviation
        return -(z**2) / 2 - jnp.log(self.deviation) - jnp.log(2 * jnp.pi) / 2


class Forecaster(nnx.Module):
    def __init__(self, features: int, hidden: int, layers: int, *, rngs: nnx.Rngs) -> None:
        sizes = [1 + features, *[hidden] * layers]
        self.cells = nnx.List([nnx.GRUCell(n, m, rngs=rngs) for n, m in itertools.pairwise(sizes)])
        self.output = nnx.Linear(1 + features + hidden, 2, rngs=rngs)
        self.rngs = rngs

    def start(self, count: int) -> Hidden:
        return [jnp.zeros((count, cell.hidden_features)) for cell in self.cells]

    def step(self, hidden: Hidden, last: jax.Array, features: jax.Array) -> tuple[Hidden, Normal]:
        x = inputs = jnp.concatenate([last[:, None], features], axis=-1)
        after: Hidden = []
        for cell, carry in zip(self.cells, hidden, strict=True):
            carry, x = cell(carry, x)
            after.append(carry)
        change, spread = jnp.moveaxis(self.output(jnp.concatenate([inputs, x], axis=-1)), -1, 0)
        return after, Normal(last + change, nnx.softplus(spread) + 1e-3)

    def read(self, values: jax.Array, features: jax.Array) -> tuple[Hidden, Normal]:
        scan = nnx.scan(Forecaster.step, in_axes=(None, nnx.Carry, 1, 1), out_axes=(nnx.Carry, 1))
        return scan(self, self.start(len(values)), values[:, :-1], features[:, 1:])


def loss_fn(model: Forecaster, values: jax.Array, features: jax.Array) -> jax.Array:
    _, normal = model.read(values, features)
    return -normal.log_density(values[:, 1:])[:, DAY:].mean()


@nnx.jit(donate_argnums=(0, 1))
def train_step(
    model: Forecaster, optimizer: nnx.Optimizer, values: jax.Array, features: jax.Array
) -> jax.Array:
    loss, grads = nnx.value_and_grad(loss_fn)(model, values, features)
    optimizer.update(model, grads)
    return loss
