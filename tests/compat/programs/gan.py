"""A GAN: a generator with BatchNorm against a discriminator with SpectralNorm, two optimizers in one step."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

NOISE = 4


class Generator(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(NOISE, 2 * 2 * 8, rngs=rngs)
        self.norm1 = nnx.BatchNorm(8, rngs=rngs)
        self.up1 = nnx.ConvTranspose(8, 4, (4, 4), strides=(2, 2), padding="SAME", rngs=rngs)
        self.norm2 = nnx.BatchNorm(4, rngs=rngs)
        self.up2 = nnx.ConvTranspose(4, 1, (4, 4), strides=(2, 2), padding="SAME", rngs=rngs)

    def __call__(self, z):
        x = self.dense(z).reshape(-1, 2, 2, 8)
        x = nnx.relu(self.norm1(x))
        x = nnx.relu(self.norm2(self.up1(x)))
        return nnx.tanh(self.up2(x))


class Discriminator(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.conv1 = nnx.SpectralNorm(nnx.Conv(1, 4, (3, 3), strides=2, rngs=rngs), rngs=rngs)
        self.conv2 = nnx.SpectralNorm(nnx.Conv(4, 8, (3, 3), strides=2, rngs=rngs), rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.dense = nnx.SpectralNorm(nnx.Linear(32, 1, rngs=rngs), rngs=rngs)

    def __call__(self, x, update_stats: bool = True):
        x = nnx.leaky_relu(self.conv1(x, update_stats=update_stats), 0.2)
        x = nnx.leaky_relu(self.conv2(x, update_stats=update_stats), 0.2)
        x = self.dropout(x.reshape(x.shape[0], -1))
        return self.dense(x, update_stats=update_stats)[:, 0]


class GAN(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.generator = Generator(rngs=rngs)
        self.discriminator = Discriminator(rngs=rngs)
        self.noise = rngs.noise.fork()

    def sample(self, count: int):
        return self.generator(jax.random.normal(self.noise(), (count, NOISE)))


def bce(logits, target):
    return optax.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, target)).mean()


@nnx.jit
def train_step(gan: GAN, g_optimizer: nnx.Optimizer, d_optimizer: nnx.Optimizer, real):
    fake = gan.sample(real.shape[0])

    def d_loss_fn(discriminator):
        return bce(discriminator(real), 0.9) + bce(discriminator(jax.lax.stop_gradient(fake)), 0.0)

    d_loss, d_grads = nnx.value_and_grad(d_loss_fn)(gan.discriminator)
    d_optimizer.update(gan.discriminator, d_grads)

    z = jax.random.normal(gan.noise(), (real.shape[0], NOISE))

    def g_loss_fn(generator, discriminator):
        return bce(discriminator(generator(z), update_stats=False), 1.0)

    g_loss, g_grads = nnx.value_and_grad(g_loss_fn)(gan.generator, gan.discriminator)
    g_optimizer.update(gan.generator, g_grads)
    return {"d": d_loss, "g": g_loss, "norm": optax.global_norm(g_grads)}


def main():
    gan = GAN(rngs=nnx.Rngs(0, noise=1, dropout=2))
    g_optimizer = nnx.Optimizer(gan.generator, optax.adam(1e-3, b1=0.5), wrt=nnx.Param)
    d_optimizer = nnx.Optimizer(gan.discriminator, optax.adam(1e-3, b1=0.5), wrt=nnx.Param)
    real = jnp.tanh(jax.random.normal(jax.random.key(4), (3, 4, 8, 8, 1)))
    history = [train_step(gan, g_optimizer, d_optimizer, batch) for batch in real]
    gan.eval()
    samples = gan.sample(2)
    scores = gan.discriminator(samples, update_stats=False)
    _, params, stats, rest = nnx.split(gan, nnx.Param, nnx.BatchStat, ...)
    return [history, samples, scores, params, stats, rest]
