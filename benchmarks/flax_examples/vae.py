"""The autoencoder and the step of examples/vae in Flax NNX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

PIXELS = 28 * 28


class Encoder(nnx.Module):
    def __init__(self, hidden: int, latents: int, *, rngs: nnx.Rngs) -> None:
        self.layers = nnx.Sequential(
            nnx.Linear(PIXELS, hidden, rngs=rngs),
            nnx.relu,
            nnx.Linear(hidden, hidden, rngs=rngs),
            nnx.relu,
        )
        self.mean = nnx.Linear(hidden, latents, rngs=rngs)
        self.log_variance = nnx.Linear(hidden, latents, rngs=rngs)

    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = self.layers(images)
        return self.mean(x), self.log_variance(x)


class Vae(nnx.Module):
    def __init__(self, hidden: int, latents: int, *, rngs: nnx.Rngs) -> None:
        self.latents = latents
        self.encoder = Encoder(hidden, latents, rngs=rngs)
        self.decoder = nnx.Sequential(
            nnx.Linear(latents, hidden, rngs=rngs),
            nnx.relu,
            nnx.Linear(hidden, hidden, rngs=rngs),
            nnx.relu,
            nnx.Linear(hidden, PIXELS, rngs=rngs),
        )
        self.rngs = rngs

    def elbo(self, images: jax.Array) -> jax.Array:
        mean, log_variance = self.encoder(images)
        noise = jax.random.normal(self.rngs.codes(), mean.shape)
        codes = mean + jnp.exp(log_variance / 2) * noise
        return log_likelihood(self.decoder(codes), images) - divergence(mean, log_variance)


def log_likelihood(logits: jax.Array, images: jax.Array) -> jax.Array:
    return -(nnx.softplus(logits) - images * logits).sum(-1)


def divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    return (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1) / 2


def loss_fn(model: Vae, images: jax.Array) -> jax.Array:
    return -model.elbo(images).mean()


@nnx.jit(donate_argnums=(0, 1))
def train_step(model: Vae, optimizer: nnx.Optimizer, pixels: jax.Array) -> jax.Array:
    images = binarize(model.rngs.pixels(), pixels)
    loss, grads = nnx.value_and_grad(loss_fn)(model, images)
    optimizer.update(model, grads)
    return loss


def binarize(key: jax.Array, pixels: jax.Array) -> jax.Array:
    return (jax.random.uniform(key, pixels.shape) * 255 < pixels).astype(jnp.float32)
