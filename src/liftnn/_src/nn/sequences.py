"""Batches of sequences of several lengths: reverse each one, and select the entry at its end."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from liftnn import errors
from liftnn._src.nn.explicit_axes import automatic, entries_of


def as_lengths(lengths: Any, batch: tuple[int, ...]) -> jax.Array:
    """Convert the lengths of sequences to an array with one length for each sequence.

    Args:
      lengths: Integers; their shape can be broadcast to the batch axes.
      batch: Sizes of the batch axes.

    Returns:
      Array of shape `batch`.

    Raises:
      ArgumentError: If the lengths are not integers, or if their shape does not fit.
    """
    lengths = jnp.asarray(lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise errors.ArgumentError(
            f"`seq_lengths` must contain integers, but its dtype is {lengths.dtype.name}.",
            "Pass the number of steps of each sequence, such as mask.sum(-1) for a boolean mask.",
        )
    sizes = lengths.shape
    fits = len(sizes) <= len(batch) and all(
        size in (1, wanted) for size, wanted in zip(sizes, batch[len(batch) - len(sizes) :], strict=True)
    )
    if not fits:
        raise errors.ArgumentError(
            f"`seq_lengths` has the shape {sizes}, but the batch axes of the input have the shape {batch}.",
            "Pass one length for each sequence.",
        )
    return jnp.broadcast_to(lengths.astype(int), batch)  # positions may not fit in a smaller dtype


def flip_sequences(x: jax.Array, lengths: jax.Array | None, time_axis: int) -> jax.Array:
    """Reverse sequences in time, each within its length, so that the padding stays at the end.

    Args:
      x: Array with batch axes, except for the time axis, followed by feature axes.
      lengths: The length of each sequence, of the shape of the batch axes. None reverses all of the time axis.
      time_axis: The time axis: 0, or the axis after the batch axes.

    Returns:
      Array of the shape of `x`. The padding is reversed too.
    """
    if lengths is None:
        return jnp.flip(x, time_axis)
    steps = x.shape[time_axis]
    position = jnp.expand_dims(jnp.arange(steps), [i for i in range(lengths.ndim + 1) if i != time_axis])
    index = (jnp.expand_dims(lengths, time_axis) - 1 - position) % steps
    features = range(index.ndim, x.ndim)
    return jnp.take_along_axis(x, jnp.expand_dims(index, tuple(features)), axis=time_axis)


def select_last(x: ArrayLike, lengths: jax.Array) -> jax.Array:
    """Select the entry at the end of each sequence.

    Args:
      x: Array of shape `(time, *batch, ...)`.
      lengths: The length of each sequence, of shape `batch`.

    Returns:
      Array of shape `(*batch, ...)`.

    Raises:
      ArgumentError: If `x` does not have the batch axes.
    """
    x = jnp.asarray(x)
    if x.shape[1 : 1 + lengths.ndim] != lengths.shape:
        raise errors.ArgumentError(
            f"With `seq_lengths`, each array of the carry needs the batch axes {lengths.shape} in front, but one has "
            f"the shape {x.shape[1:]}.",
            "Give each sequence of the batch its own carry, or call with return_carry=False.",
        )
    entries = entries_of(x) or (None,) * x.ndim
    return automatic(_select, PartitionSpec(*entries[1:]), x, lengths)


def _select(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Return the entry at the end of each sequence."""
    return x[(lengths - 1, *jnp.indices(lengths.shape, sparse=True))]
