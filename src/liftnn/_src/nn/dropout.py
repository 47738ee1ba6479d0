"""Dropout: random zeros in training."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.rngs import Rngs, RngStream


class Dropout(Module):
    """Sets each entry to zero with the probability `rate`, and divides the others by `1 - rate`.

    `eval()` on the layer, or on any module around it, turns it off, `train()` on again.

    Args:
      rate: Probability, from 0 to 1, that an entry becomes zero.
      broadcast_dims: Axes along which all entries share one fate. The default, `()`, is none.
      deterministic: Whether the input is returned as it is. False by default; None if every call is going to say so.
      rng_collection: The stream of a `Rngs` that the keys come from; `"dropout"` by default.
      rngs: A `Rngs` or a stream, from which the layer forks a stream of its own. The default, None, is for a layer
        that gets `rngs` in each call.

    Raises:
      ArgumentError: If the rate is not between 0 and 1, or if `rngs` is of another type.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> layer = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))
      >>> sorted(set(layer(jnp.ones((100,))).tolist()))
      [0.0, 2.0]
      >>> layer.eval()
      >>> layer(jnp.ones((2,)))
      Array([1., 1.], dtype=float32)

    References:
      Srivastava et al., Dropout, https://jmlr.org/papers/v15/srivastava14a.html
    """

    def __init__(
        self,
        rate: float,
        *,
        broadcast_dims: Sequence[int] = (),
        deterministic: bool | None = False,
        rng_collection: str = "dropout",
        rngs: Rngs | RngStream | None = None,
    ):
        if not 0.0 <= rate <= 1.0:
            raise errors.ArgumentError(
                f"The rate of a Dropout is the probability that an entry becomes zero, but it is {rate!r}.",
                "Give a rate from 0 to 1.",
            )
        self.rate, self.broadcast_dims = rate, broadcast_dims
        self.deterministic, self.rng_collection = deterministic, rng_collection
        if rngs is not None and not isinstance(rngs, (Rngs, RngStream)):
            raise _not_random(rngs, "a liftnn.Rngs or one of its streams")
        stream = rngs[rng_collection] if isinstance(rngs, Rngs) else rngs
        self.rngs = None if stream is None else RngStream(stream(), tag=stream.tag)

    def __call__(
        self,
        inputs: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Rngs | RngStream | jax.Array | None = None,
    ) -> jax.Array:
        """Sets random entries of the inputs to zero, unless the layer is turned off.

        Args:
          inputs: Array of any shape.
          deterministic: Whether the inputs are returned as they are. The default, None, is the layer's own setting.
          rngs: A `Rngs`, a stream or a key to use instead of the layer's own stream. The default, None, is that
            stream.

        Returns:
          Array of the shape and dtype of the inputs.

        Raises:
          ArgumentError: If neither the call nor the layer says whether it is deterministic, or has a source of keys.
        """
        off = self.deterministic if deterministic is None else deterministic
        if off is None:
            raise errors.ArgumentError(
                "Dropout does not know whether it is on: deterministic is None in the layer and in the call.",
                "Call train() or eval() on the model, or give deterministic to the constructor or the call.",
            )
        if off or self.rate == 0.0:
            return inputs
        if self.rate == 1.0:  # dividing by 1 - rate would make the gradient NaN
            return jnp.zeros_like(inputs)
        kept = 1.0 - self.rate
        scaled = jnp.asarray(inputs) / kept
        shape = list(scaled.shape)
        for axis in self.broadcast_dims:
            shape[axis] = 1
        key = self._key(self.rngs if rngs is None else rngs)
        mask = jax.random.bernoulli(key, kept, shape, out_sharding=jax.typeof(scaled).sharding)
        return lax.select(jnp.broadcast_to(mask, scaled.shape), scaled, jnp.zeros_like(scaled))

    def _key(self, rngs: Rngs | RngStream | jax.Array | None) -> jax.Array:
        """The key for one call."""
        if rngs is None:
            raise errors.ArgumentError(
                "Dropout is on, but it has no source of random keys: rngs was given to neither layer nor call.",
                "Make it as Dropout(rate, rngs=liftnn.Rngs(0)), give rngs to the call, or turn it off with eval().",
            )
        if isinstance(rngs, jax.Array):
            return rngs
        if isinstance(rngs, (Rngs, RngStream)):
            return rngs[self.rng_collection]() if isinstance(rngs, Rngs) else rngs()
        raise _not_random(rngs, "a liftnn.Rngs, one of its streams or a key")


def _not_random(rngs: object, wanted: str) -> errors.ArgumentError:
    """The error for something that no keys come from."""
    return errors.ArgumentError(
        f"Dropout gets its keys from {wanted}, but rngs is of type {type(rngs).__qualname__}.",
        "Pass rngs=liftnn.Rngs(0), where 0 is the seed.",
    )
