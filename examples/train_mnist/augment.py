"""Random distortions of images, as a layer that is active in training only."""

import jax
import jax.numpy as jnp

import liftnn as nnx


class Augment(nnx.Module):
    """Rotates, scales, shears and moves each image by random amounts, unless `eval()` has switched it off.

    Args:
      angle: the largest angle, in radians.
      scale: the largest change of size and of shape (shear), as a fraction.
      shift: the largest distance, in pixels.
      rngs: its stream `augment` draws the amounts.
    """

    def __init__(self, angle: float, scale: float, shift: float, *, rngs: nnx.Rngs) -> None:
        self.angle, self.scale, self.shift = angle, scale, shift
        self.deterministic = False  # `train()` and `eval()` set it
        self.rngs = rngs.augment.fork()

    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns distorted images of the same shape, (n, height, width, channels)."""
        if self.deterministic:
            return images
        return jax.vmap(resample)(images, self.draw_maps(len(images)))

    def draw_maps(self, count: int) -> jax.Array:
        """Returns an affine map for each image, of shape (count, 2, 3)."""
        angle = self.rngs.uniform((count,), minval=-self.angle, maxval=self.angle)
        stretch = self.rngs.uniform((count, 2, 2), minval=-self.scale, maxval=self.scale)
        shift = self.rngs.uniform((count, 2, 1), minval=-self.shift, maxval=self.shift)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        rotation = jnp.moveaxis(jnp.array([[cos, -sin], [sin, cos]]), -1, 0)
        return jnp.concatenate([rotation @ (jnp.eye(2) + stretch), shift], axis=-1)


def resample(image: jax.Array, affine: jax.Array) -> jax.Array:
    """Returns an image each of whose pixels is read elsewhere in another one, where an affine map says.

    Args:
      image: of shape (height, width, channels).
      affine: of shape (2, 3): a matrix and a shift, for places relative to the centre of the image.
    """
    height, width, _ = image.shape
    centre = jnp.array([[height - 1], [width - 1]]) / 2
    grid = jnp.indices((height, width)).reshape(2, -1) - centre
    places = list(affine[:, :2] @ grid + affine[:, 2:] + centre)
    read = jax.vmap(jax.scipy.ndimage.map_coordinates, in_axes=(-1, None, None), out_axes=-1)
    return read(image, places, 1).reshape(image.shape)  # 1: linear between pixels
