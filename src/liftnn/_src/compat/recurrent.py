"""`flip_sequences`: reverse sequences in time, with the arguments of Flax NNX."""

from __future__ import annotations

from typing import Any

import jax

from liftnn._src.nn import sequences
from liftnn._src.tracebacks import boundary


@boundary
def flip_sequences(inputs: jax.Array, seq_lengths: Any, num_batch_dims: int, time_major: bool) -> jax.Array:
    """Reverse sequences in time, each within its length, so that the padding stays at the end.

    Args:
      inputs: Array of shape `(*batch, time, *features)`, or `(time, *batch, *features)`.
      seq_lengths: The length of each sequence, of shape `batch`. None reverses the time axis.
      num_batch_dims: The number of batch axes.
      time_major: Whether the time axis comes first.

    Returns:
      Array of the shape of `inputs`.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> padded = jnp.array([[1, 0, 0], [2, 3, 0]])
      >>> nnx.nn.recurrent.flip_sequences(padded, jnp.array([1, 2]), 1, False).tolist()
      [[1, 0, 0], [3, 2, 0]]
    """
    lengths = None if seq_lengths is None else jax.numpy.asarray(seq_lengths)
    return sequences.flip_sequences(inputs, lengths, 0 if time_major else num_batch_dims)
