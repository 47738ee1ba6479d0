"""The network and the step of examples/ensemble in Flax NNX."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax
from flax import nnx


class Mlp(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.layers = nnx.Sequential(
            nnx.Linear(28 * 28, 128, rngs=rngs),
            nnx.relu,
            nnx.Dropout(0.1, rngs=rngs),
            nnx.Linear(128, 10, rngs=rngs),
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.layers(jnp.asarray(images, jnp.float32).reshape(len(images), -1) / 255)


def create(seed: jax.Array | int, learning_rate: jax.Array | float, steps: int) -> tuple[Mlp, nnx.Optimizer]:
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, steps // 10, steps)

    @optax.inject_hyperparams
    def adam(peak: float) -> optax.GradientTransformation:
        return optax.adam(lambda step: peak * schedule(step))

    model = Mlp(rngs=nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, adam(1.0), wrt=nnx.Param)
    optimizer.opt_state.hyperparams["peak"][...] = learning_rate
    return model, optimizer


def loss_fn(model: Mlp, images: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()


def step(model: Mlp, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> jax.Array:
    loss, grads = nnx.value_and_grad(loss_fn)(model, images, labels)
    optimizer.update(model, grads)
    return loss


train_step = nnx.jit(nnx.vmap(step, in_axes=(0, 0, None, None)), donate_argnums=(0, 1))


def create_members(seeds: jax.Array, rates: jax.Array, steps: int) -> tuple[Mlp, nnx.Optimizer]:
    keys = jax.vmap(jax.random.key)(seeds)  # Rngs takes no traced seed
    return nnx.vmap(functools.partial(create, steps=steps))(keys, rates)
