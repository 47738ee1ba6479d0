"""The two networks: images of shape (n, 28, 28, 1), uint8, to logits of shape (n, 10)."""

import jax
import jax.numpy as jnp
import numpy as np

import liftnn as nnx

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


def to_unit(images: Array) -> jax.Array:
    """Pixels of 0 to 255 as floats of 0 to 1."""
    return jnp.asarray(images, jnp.float32) / 255


MODELS = {"mlp": Mlp, "cnn": Cnn}
