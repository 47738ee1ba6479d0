"""A U-Net that denoises images: GroupNorm, a time embedding, transposed convolutions and skip connections."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx


def embed_time(t, features):
    frequencies = jnp.exp(-jnp.log(100.0) * jnp.arange(features // 2) / (features // 2))
    angles = t[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class ConvBlock(nnx.Module):
    def __init__(self, inputs, outputs, time_features, *, rngs):
        self.conv1 = nnx.Conv(inputs, outputs, kernel_size=(3, 3), rngs=rngs)
        self.norm1 = nnx.GroupNorm(outputs, num_groups=2, rngs=rngs)
        self.time = nnx.Linear(time_features, outputs, rngs=rngs)
        self.conv2 = nnx.Conv(outputs, outputs, kernel_size=(3, 3), rngs=rngs)
        self.norm2 = nnx.GroupNorm(outputs, num_groups=2, rngs=rngs)

    def __call__(self, x, t):
        x = nnx.silu(self.norm1(self.conv1(x))) + self.time(t)[:, None, None]
        return nnx.silu(self.norm2(self.conv2(x)))


class UNet(nnx.Module):
    def __init__(self, channels=1, features=(4, 8), time_features=8, *, rngs):
        self.time_features = time_features
        self.time = nnx.Sequential(
            nnx.Linear(time_features, time_features, rngs=rngs),
            nnx.swish,
            nnx.Linear(time_features, time_features, rngs=rngs),
        )
        self.down = nnx.List([])
        self.up = nnx.Dict()
        inputs = channels
        for outputs in features:
            self.down.append(ConvBlock(inputs, outputs, time_features, rngs=rngs))
            inputs = outputs
        self.middle = ConvBlock(inputs, 2 * inputs, time_features, rngs=rngs)
        inputs = 2 * inputs
        for i, outputs in reversed(list(enumerate(features))):
            self.up[f"level{i}"] = nnx.Dict(
                upsample=nnx.ConvTranspose(inputs, outputs, (2, 2), strides=(2, 2), rngs=rngs),
                block=ConvBlock(2 * outputs, outputs, time_features, rngs=rngs),
            )
            inputs = outputs
        self.out = nnx.Conv(inputs, channels, kernel_size=(1, 1), rngs=rngs)

    def __call__(self, x, t):
        t = self.time(embed_time(t, self.time_features))
        skips = []
        for block in self.down:
            x = block(x, t)
            skips.append(x)
            x = nnx.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = self.middle(x, t)
        for i in reversed(range(len(skips))):
            level = self.up[f"level{i}"]
            x = level.upsample(x)
            x = level["block"](jnp.concatenate([x, skips.pop()], axis=-1), t)
        return self.out(x)


def loss_fn(model, images, rngs):
    t = rngs.time.uniform((images.shape[0],))
    noise = rngs.noise.normal(images.shape)
    noised = jnp.sqrt(1 - t)[:, None, None, None] * images + jnp.sqrt(t)[:, None, None, None] * noise
    return jnp.mean((model(noised, t) - noise) ** 2)


@nnx.jit
def train_step(model, optimizer, ema, rngs, images):
    loss, grads = nnx.value_and_grad(loss_fn)(model, images, rngs)
    optimizer.update(model, grads)
    params = nnx.state(model, nnx.Param)
    return loss, jax.tree.map(lambda e, p: 0.9 * e + 0.1 * p, ema, params)


def main():
    model = UNet(rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    rngs = nnx.Rngs(time=1, noise=2)
    ema = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
    images = jax.random.normal(jax.random.key(3), (3, 2, 8, 8, 1))
    losses = []
    for batch in images:
        loss, ema = train_step(model, optimizer, ema, rngs, batch)
        losses.append(loss)
    averaged = nnx.clone(model)
    nnx.update(averaged, ema)
    sample = nnx.jit(lambda m, x: m(x, jnp.ones(2)))(averaged, images[0])
    count = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    return [losses, ema, sample, count, rngs.noise.count[...], nnx.state(model)]
