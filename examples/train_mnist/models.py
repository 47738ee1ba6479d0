"""The three networks: images of shape (n, 28, 28, 1), uint8, to logits of shape (n, 10)."""

import jax
import jax.numpy as jnp
import numpy as np

import liftnn as nnx
from augment import Augment

Array = (
    jax.Array | np.ndarray
)  # images and labels: numpy's as they are loaded, JAX's inside a compiled function


class Mlp(nnx.Module):
    """Two hidden layers with dropout."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.layers = nnx.Sequential(
            nnx.Linear(28 * 28, 256, rngs=rngs),
            nnx.relu,
            nnx.Dropout(0.2, rngs=rngs),
            nnx.Linear(256, 128, rngs=rngs),
            nnx.relu,
            nnx.Linear(128, 10, rngs=rngs),
        )

    def __call__(self, images: Array) -> jax.Array:
        return self.layers(to_unit(images).reshape(len(images), -1))


class Cnn(nnx.Module):
    """Two convolutions with batch normalization, then two dense layers with dropout in between."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        # strides, not a pool: the gradient of a max-pool at full size takes most of a step on a CPU
        self.conv1 = nnx.Conv(1, 32, (5, 5), strides=2, use_bias=False, rngs=rngs)
        self.norm1 = nnx.BatchNorm(32, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(32, 32, (3, 3), use_bias=False, rngs=rngs)
        self.norm2 = nnx.BatchNorm(32, momentum=0.9, rngs=rngs)
        self.hidden = nnx.Linear(7 * 7 * 32, 128, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.output = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, images: Array) -> jax.Array:
        x = nnx.relu(self.norm1(self.conv1(to_unit(images))))
        x = nnx.max_pool(self.conv2(x), window_shape=(2, 2), strides=(2, 2))
        x = nnx.relu(self.norm2(x)).reshape(len(x), -1)
        return self.output(self.dropout(nnx.relu(self.hidden(x))))


class Block(nnx.Module):
    """Two convolutions, and what they add to their input.

    Args:
      channels: of the input.
      features: of the output.
      strides: of the first convolution.
      rngs: draws the weights.
    """

    def __init__(self, channels: int, features: int, strides: int, *, rngs: nnx.Rngs) -> None:
        def conv(channels: int, size: int, strides: int = 1) -> nnx.Conv:
            return nnx.Conv(channels, features, (size, size), strides=strides, use_bias=False, rngs=rngs)

        self.conv1, self.norm1 = conv(channels, 3, strides), nnx.BatchNorm(features, momentum=0.9, rngs=rngs)
        self.conv2, self.norm2 = conv(features, 3), nnx.BatchNorm(features, momentum=0.9, rngs=rngs)
        self.shortcut = conv(channels, 1, strides) if strides > 1 or channels != features else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Resnet(nnx.Module):
    """A convolution, three residual blocks, and a dense layer; its training images are distorted at random."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.augment = Augment(angle=0.2, scale=0.15, shift=2.0, rngs=rngs)
        self.conv = nnx.Conv(1, 16, (5, 5), strides=2, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.9, rngs=rngs)
        self.blocks = [Block(16, 16, 1, rngs=rngs), Block(16, 32, 2, rngs=rngs), Block(32, 64, 2, rngs=rngs)]
        self.output = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images: Array) -> jax.Array:
        x = self.augment(to_unit(images))
        x = nnx.relu(self.norm(self.conv(x)))
        for block in self.blocks:
            x = block(x)
        return self.output(x.mean(axis=(1, 2)))


def to_unit(images: Array) -> jax.Array:
    """Pixels of 0 to 255 as floats of 0 to 1."""
    return jnp.asarray(images, jnp.float32) / 255


Classifier = Mlp | Cnn | Resnet
MODELS = {"mlp": Mlp, "cnn": Cnn, "resnet": Resnet}
