"""A variational autoencoder of binary images of 28 x 28 pixels."""

import jax
import jax.numpy as jnp
import numpy as np

import liftnn as nnx

Array = jax.Array | np.ndarray
PIXELS = 28 * 28


class Encoder(nnx.Module):
    """From images of shape (n, 784) to the mean and the logarithm of the variance of their codes."""

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
    """An encoder, a decoder, and the random stream from which codes are drawn.

    Args:
      hidden: features of the hidden layers.
      latents: numbers in a code.
      rngs: the streams `params` and `codes`.
    """

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
        """Returns the evidence lower bound of each image, of shape (n,), for one code drawn for each.

        Args:
          images: zeros and ones of shape (n, 784).
        """
        mean, log_variance = self.encoder(images)
        codes = mean + jnp.exp(log_variance / 2) * self.rngs.codes.normal(mean.shape)
        return log_likelihood(self.decoder(codes), images) - divergence(mean, log_variance)

    def log_weight(self, images: jax.Array) -> jax.Array:
        """Returns log p(image, code) - log q(code | image) for one code drawn for each image, of shape (n,)."""
        mean, log_variance = self.encoder(images)
        noise = self.rngs.codes.normal(mean.shape)
        codes = mean + jnp.exp(log_variance / 2) * noise
        prior = -(codes**2).sum(-1) / 2
        posterior = -(noise**2 + log_variance).sum(-1) / 2  # the constants of both are equal
        return log_likelihood(self.decoder(codes), images) + prior - posterior

    def reconstruct(self, images: jax.Array) -> jax.Array:
        """Returns the pixels, between 0 and 1, for the mean code of each image."""
        return nnx.sigmoid(self.decoder(self.encoder(images)[0]))

    def sample(self, count: int) -> jax.Array:
        """Returns the pixels, between 0 and 1, for codes drawn from the prior: of shape (count, 784)."""
        return nnx.sigmoid(self.decoder(self.rngs.codes.normal((count, self.latents))))

    def interpolate(self, first: jax.Array, last: jax.Array, count: int) -> jax.Array:
        """Returns pixels for codes at equal steps from those of some images to those of others.

        Args:
          first: images of shape (n, 784).
          last: as many.
          count: the codes in each row, both ends included.

        Returns:
          Pixels between 0 and 1, of shape (n, count, 784).
        """
        start, end = self.encoder(first)[0][:, None], self.encoder(last)[0][:, None]
        return nnx.sigmoid(self.decoder(start + jnp.linspace(0, 1, count)[:, None] * (end - start)))


def log_likelihood(logits: jax.Array, images: jax.Array) -> jax.Array:
    """The logarithm of the probability of binary pixels, summed over the pixels: of shape (n,)."""
    return -(nnx.softplus(logits) - images * logits).sum(-1)


def divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """The Kullback-Leibler divergence of normal codes from the standard normal prior, of shape (n,)."""
    return (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1) / 2
