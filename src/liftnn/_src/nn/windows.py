"""Shared parts of convolutions: sizes per dimension, padding, and batch axes folded into one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.nn.arguments import shape_of_input
from liftnn._src.nn.explicit_axes import whole_along

Padding = str | int | Sequence[int | tuple[int, int]]

PAD_MODES = {"CIRCULAR": "wrap", "REFLECT": "reflect"}
"""The paddings that repeat the input, with their names in `jax.numpy.pad`."""

PADDINGS = ("SAME", "SAME_LOWER", "VALID", "CAUSAL", *PAD_MODES)
"""The named paddings."""


def per_dimension(name: str, sizes: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Return one size for each spatial dimension.

    Args:
      name: Name of the argument, for the message.
      sizes: One size for all dimensions, or one for each; None means 1.
      rank: Number of spatial dimensions.

    Returns:
      The sizes.

    Raises:
      ArgumentError: If there are more or fewer sizes than dimensions.
    """
    if sizes is None or isinstance(sizes, (int, Integral)):
        return (1 if sizes is None else int(sizes),) * rank
    if len(sizes) != rank:
        raise errors.ArgumentError(
            f"The kernel has {rank} spatial dimensions, but {name} is {sizes!r}.",
            f"Pass an int, or a sequence of {rank} ints.",
        )
    return tuple(sizes)


def canonicalize_padding(padding: Padding, rank: int) -> str | tuple[tuple[int, int], ...]:
    """Return a padding as a name in upper case, or as one pair for each spatial dimension.

    Args:
      padding: A name, an int for all sides, or for each dimension an int or a pair `(low, high)`.
      rank: Number of spatial dimensions.

    Returns:
      The name, or the pairs.

    Raises:
      ArgumentError: If the padding is invalid.
    """
    if isinstance(padding, str) and padding.upper() in PADDINGS:
        return padding.upper()
    if isinstance(padding, (int, Integral)):
        return ((int(padding), int(padding)),) * rank
    if not isinstance(padding, str) and isinstance(padding, Sequence) and len(padding) == rank:
        pairs = [(p, p) if isinstance(p, (int, Integral)) else p for p in padding]
        if all(isinstance(p, Sequence) and len(p) == 2 for p in pairs):
            return tuple((int(low), int(high)) for low, high in pairs)
    raise errors.ArgumentError(
        f"padding={padding!r} is not a valid padding for {rank} spatial dimensions.",
        f"Pass one of {', '.join(map(repr, PADDINGS))}, an int, or for each dimension an int or a pair (low, high).",
    )


def pad_inputs(
    inputs: jax.Array, padding: Padding, kernel_size: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[jax.Array, Any]:
    """Pad the inputs if `jax.lax` does not support the padding.

    Args:
      inputs: Array of shape `(batch, *space, features)`.
      padding: The padding of the convolution.
      kernel_size: Size of the kernel along each spatial dimension.
      dilation: Dilation of the kernel along each spatial dimension.

    Returns:
      The inputs, padded if necessary, and the remaining padding for `jax.lax.conv_general_dilated`.

    Raises:
      ArgumentError: If the padding is unknown, or causal over more than one spatial dimension.
    """
    canonical = canonicalize_padding(padding, len(kernel_size))
    extents = [(size - 1) * step for size, step in zip(kernel_size, dilation, strict=True)]
    if canonical == "CAUSAL":
        if len(extents) != 1:
            raise errors.ArgumentError(
                f"CAUSAL padding needs one spatial dimension, but the kernel has {len(extents)}.",
                "Use a kernel_size of one int, or pass the padding as pairs (low, high).",
            )
        return jnp.pad(inputs, [(0, 0), (extents[0], 0), (0, 0)]), "VALID"
    if canonical in PAD_MODES:
        pairs = [(extent // 2, (extent + 1) // 2) for extent in extents]
        return jnp.pad(inputs, [(0, 0), *pairs, (0, 0)], mode=PAD_MODES[str(canonical)]), "VALID"
    return inputs, canonical


def fold_batch(layer: str, inputs: jax.Array, rank: int, features: int) -> tuple[jax.Array, tuple[int, ...]]:
    """Reshape all axes before the spatial ones to a single batch axis; the inverse of `unfold_batch`.

    On a mesh with explicit axes, inputs that are sharded along spatial axes or batch axes after the first are gathered
    along these, as a window reaches over several shards.

    Args:
      layer: Name of the layer's class, for the message.
      inputs: Array of shape `(*batch, *space, features)` with any number of batch axes, including none.
      rank: Number of spatial dimensions.
      features: Number of features of the layer.

    Returns:
      The array of shape `(batch, *space, features)`, and the shape of the batch axes.

    Raises:
      ArgumentError: If the inputs have too few axes, or not the number of features of the layer.
      ArgumentTypeError: If the input is not an array.
    """
    shape = shape_of_input(layer, inputs)
    if len(shape) <= rank or shape[-1] != features:
        raise errors.ArgumentError(
            f"This {layer} expects inputs of {rank} spatial dimensions and {features} features (channels last), "
            f"but its input has shape {tuple(shape)}.",
            "Create the layer with the input's number of features, or change the input.",
        )
    batch = shape[: -rank - 1]
    inputs = whole_along(inputs, range(bool(batch), len(shape) - 1))
    if len(batch) == 1:
        return inputs, batch
    return jnp.reshape(inputs, (math.prod(batch), *shape[-rank - 1 :])), batch


def unfold_batch(outputs: jax.Array, batch: tuple[int, ...]) -> jax.Array:
    """Restore the shape of the batch axes; the inverse of `fold_batch`."""
    return outputs if len(batch) == 1 else outputs.reshape((*batch, *outputs.shape[1:]))
