"""Dropout: random entries are set to zero in training."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from liftnn import errors
from liftnn._src.foreign_names.attributes import answer
from liftnn._src.modules.module import Module
from liftnn._src.nn.arguments import Axes, as_input, normalize_axes
from liftnn._src.nn.explicit_axes import entries_of, mesh_of, replicate_on_mesh_of, reshard_like
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs, RngStream
from liftnn._src.trees import is_argument_array, is_tracer
from liftnn._src.variables.operators import unwrap_raw


class Dropout(Module):
    """Set each entry to zero with probability `rate`, and divide the others by `1 - rate`.

    `eval()` on the layer, or on a module that contains it, disables dropout; `train()` enables it again.

    Args:
      rate: The probability, from 0 to 1, that an entry is set to zero.
      broadcast_dims: An axis or several, along which all entries share one mask. The default, `()`, means none.
      deterministic: Whether the input is returned unchanged. False by default; with None, each call must pass it.
      rng_collection: The name of the stream of an `Rngs` that the keys are drawn from; `"dropout"` by default.
      rngs: An `Rngs` or a stream, which seeds the layer's own stream. With the default, None, each call must pass
        `rngs`.

    Raises:
      ArgumentError: If `rate` is not between 0 and 1, or if `rngs` is neither an `Rngs` nor a stream.
      ArgumentTypeError: If `rate` is an array without a value, in a trace.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> layer = liftnn.Dropout(0.5, rngs=liftnn.Rngs(0))
      >>> sorted(set(layer(jnp.ones((100,))).tolist()))
      [0.0, 2.0]
      >>> layer.eval()(jnp.ones((2,)))
      Array([1., 1.], dtype=float32)

    References:
      Srivastava et al., Dropout, https://jmlr.org/papers/v15/srivastava14a.html
    """

    def __init__(
        self,
        rate: float,
        *,
        broadcast_dims: Axes = (),
        deterministic: bool | None = False,
        rng_collection: str = "dropout",
        rngs: Rngs | RngStream | None = None,
    ):
        self.rate, self.broadcast_dims = as_rate("The rate of a Dropout", rate), broadcast_dims
        self.deterministic, self.rng_collection = deterministic, rng_collection
        self.rngs = fork_stream(rngs, rng_collection)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Set the mode of a copy, for `liftnn.view`.

        Args:
          deterministic: Whether to keep all values. None, the default, changes nothing.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    def __call__(
        self,
        inputs: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Rngs | RngStream | jax.Array | None = None,
    ) -> jax.Array:
        """Set random entries of the inputs to zero, unless the layer is deterministic.

        Args:
          inputs: Array of any shape.
          deterministic: Whether the inputs are returned unchanged. The default, None, uses the layer's setting.
          rngs: An `Rngs`, a stream or a PRNG key. The default, None, uses the layer's own stream.

        Returns:
          Array of the shape and dtype of the inputs.

        Raises:
          ArgumentError: If `deterministic` is None in both the layer and the call, if dropout is enabled and neither
            has `rngs`, or if the inputs do not have the axes `broadcast_dims`.
          ArgumentTypeError: If the rate was set to an array, and the call is traced.
        """
        off = is_deterministic("Dropout", self.deterministic, deterministic)
        if off:
            return inputs
        rate = as_rate("The rate of a Dropout", self.rate)  # it may have been set
        if rate == 0.0:
            return inputs
        if rate == 1.0:  # dividing by 1 - rate would make the gradient NaN
            return jnp.zeros_like(inputs)
        kept = 1.0 - rate
        scaled = as_input("Dropout", inputs) / kept
        sharding = jax.typeof(scaled).sharding
        shape, entries = list(scaled.shape), list(sharding.spec)
        for axis in normalize_axes(scaled.ndim, self.broadcast_dims):
            shape[axis], entries[axis] = 1, None
        key = draw_key("Dropout", self.rngs if rngs is None else rngs, self.rng_collection)
        key = replicate_on_mesh_of(scaled, key)
        placed = NamedSharding(sharding.mesh, PartitionSpec(*entries))
        mask = jnp.broadcast_to(jax.random.bernoulli(key, kept, shape, out_sharding=placed), scaled.shape)
        mask = reshard_like(mask, entries_of(scaled), mesh_of(scaled))
        return lax.select(mask, scaled, jnp.zeros_like(scaled))


def as_rate(rate_of: str, rate: Any) -> float:
    """Return the rate of a dropout as a float; the comparison of an array would be a tracer in a trace.

    Args:
      rate_of: What the rate is, as the subject of the message.
      rate: The rate.

    Raises:
      ArgumentError: If `rate` is not a number between 0 and 1.
      ArgumentTypeError: If `rate` is an array without a value.
    """
    value = unwrap_raw(rate)
    if is_tracer(value):
        raise errors.ArgumentTypeError(
            f"{rate_of} must be a number, but it is an array that is being traced, which has no value yet.",
            "Set it to a Python number, such as 0.1: another number is another trace. For a rate that varies without a "
            "new trace, draw the mask with `jax.random.bernoulli`.",
        )
    number = float(value) if is_argument_array(value) else math.nan
    if not 0.0 <= number <= 1.0:
        raise errors.ArgumentError(
            f"{rate_of} must be a probability from 0 to 1, but it is {rate!r}.",
            "Pass the fraction of entries to set to zero, such as 0.1.",
        )
    return number


def fork_stream(rngs: Rngs | RngStream | None, name: str) -> RngStream | None:
    """Create the own stream of a layer with dropout, seeded by the next key of a stream.

    Args:
      rngs: An `Rngs`, a stream or None.
      name: The name of the stream of an `Rngs`.

    Returns:
      The new stream, or None if `rngs` is None.

    Raises:
      ArgumentError: If `rngs` is of another type.
    """
    if rngs is not None and not isinstance(rngs, (Rngs, RngStream)):
        raise _not_random(rngs, "a liftnn.Rngs or one of its streams")
    stream = rngs[name] if isinstance(rngs, Rngs) else rngs
    return None if stream is None else RngStream(stream(), tag=stream.tag)


def is_deterministic(dropout: str, of_layer: bool | None, of_call: bool | None) -> bool:
    """Return whether dropout is disabled: the setting of the call or, if it is None, that of the layer.

    Args:
      dropout: The subject of the message.
      of_layer: The setting of the layer.
      of_call: The setting of the call.

    Returns:
      The setting.

    Raises:
      ArgumentError: If both are None.
    """
    setting = of_layer if of_call is None else of_call
    if setting is None:
        raise errors.ArgumentError(
            f"{dropout} needs deterministic, but it is None in both the layer and the call.",
            "Call train() or eval() on the model, or pass deterministic to the constructor or the call.",
        )
    return setting


def draw_key(dropout: str, rngs: Rngs | RngStream | jax.Array | None, name: str) -> jax.Array:
    """Return the key for one call of a layer with dropout.

    Args:
      dropout: The subject of the message.
      rngs: An `Rngs`, a stream, a key, or None.
      name: The name of the stream of an `Rngs`.

    Returns:
      The key.

    Raises:
      ArgumentError: If `rngs` is None or of another type.
    """
    if rngs is None:
        raise errors.ArgumentError(
            f"{dropout} is enabled, but it has no random keys: rngs is None in both the layer and the call.",
            "Create the layer with rngs=liftnn.Rngs(0), pass rngs to the call, or disable dropout with eval().",
        )
    if isinstance(rngs, jax.Array):
        return rngs
    if isinstance(rngs, (Rngs, RngStream)):
        return rngs[name]() if isinstance(rngs, Rngs) else rngs()
    raise _not_random(rngs, "a liftnn.Rngs, one of its streams or a key")


def _not_random(rngs: object, wanted: str) -> errors.ArgumentError:
    """Return the error for an `rngs` of another type."""
    return errors.ArgumentError(
        f"Dropout needs {wanted}, but rngs is of type {type(rngs).__qualname__}.",
        "Pass rngs=liftnn.Rngs(0), where 0 is the seed.",
    )


answer(Dropout)
publish(Dropout)
