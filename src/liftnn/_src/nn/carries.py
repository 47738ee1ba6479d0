"""Carries of recurrent layers: the stream that seeds the first one, its arrays, and its size."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.nn import initializers
from liftnn._src.nn.arguments import check_initializer
from liftnn._src.rngs import Rngs, RngStream


def carry_stream(layer: str, rngs: Any) -> RngStream | None:
    """Return the stream that a call draws carries from.

    Args:
      layer: Name of the layer's class.
      rngs: An `Rngs`, whose stream `carry` is returned, a stream or None, which are returned unchanged.

    Returns:
      The stream, or None.

    Raises:
      ArgumentError: If `rngs` is of another type.
    """
    if isinstance(rngs, Rngs):
        return rngs.carry
    if rngs is None or isinstance(rngs, RngStream):
        return rngs
    raise errors.ArgumentError(
        f"{layer} needs a liftnn.Rngs or one of its streams, but rngs is of type {type(rngs).__qualname__}.",
        "Pass rngs=liftnn.Rngs(0), where 0 is the seed.",
    )


def fork(stream: RngStream) -> RngStream:
    """Return a stream of the same name, seeded by the next key of another one."""
    return RngStream(stream(), tag=stream.tag)


def stream_of_layer(layer: str, rngs: Any) -> RngStream | None:
    """Return the stream that a recurrent layer keeps.

    Args:
      layer: Name of the layer's class.
      rngs: An `Rngs`, which seeds a new stream; a stream, which is kept; True for a stream with seed 0; False for none.

    Returns:
      The stream, or None.

    Raises:
      ArgumentError: If `rngs` is of another type.
    """
    if isinstance(rngs, bool):
        return RngStream(0, tag="carry") if rngs else None
    stream = carry_stream(layer, rngs)
    if stream is None:
        raise errors.ArgumentError(
            f"{layer} needs rngs to create its initial carry, but rngs is None.",
            "Pass rngs=True for the seed 0, rngs=False if each call has `rngs` or `initial_carry`, or a liftnn.Rngs.",
        )
    return fork(stream) if isinstance(rngs, Rngs) else stream


def draw_carry(
    cell: Any,
    number: int,
    input_shape: tuple[int, ...],
    rngs: Rngs | RngStream | None,
    carry_init: initializers.Initializer | None,
) -> tuple[jax.Array, ...]:
    """Create the arrays of a cell's initial carry, each with the next key of the stream.

    Args:
      cell: The cell: its attributes `hidden_features`, `param_dtype`, `carry_init` and `rngs` are used.
      number: The number of arrays.
      input_shape: Shape of the input of one step, `(..., in_features)`.
      rngs: An `Rngs`, a stream, or None for the stream of the cell.
      carry_init: The initializer, or None for that of the cell, which is zeros unless it has another one.

    Returns:
      Arrays of shape `(..., hidden_features)`.

    Raises:
      ArgumentError: If neither the call nor the cell has random keys, unless the initializer is zeros.
    """
    layer = type(cell).__qualname__
    stream = carry_stream(layer, cell.rngs if rngs is None else rngs)
    init = carry_init or cell.carry_init or initializers.zeros
    check_initializer(init)
    shape = (*input_shape[:-1], cell.hidden_features)
    if stream is None and init is initializers.zeros:
        return tuple(jnp.zeros(shape, cell.param_dtype) for _ in range(number))
    if stream is None:
        raise errors.ArgumentError(
            f"{layer} has no random keys to create its initial carry: rngs is None.",
            "Pass rngs=liftnn.Rngs(0) to initialize_carry, or create the cell with keep_rngs=True.",
        )
    return tuple(init(stream(), shape, cell.param_dtype) for _ in range(number))


def check_hidden(layer: str, hidden: Any, hidden_features: int) -> None:
    """Raise ArgumentError if the last axis of an array of the carry does not have the size `hidden_features`.

    Args:
      layer: Name of the layer's class.
      hidden: The array.
      hidden_features: The number of features of the cell.

    Raises:
      ArgumentError: If the sizes differ.
    """
    shape = jnp.shape(hidden)
    if shape[-1:] != (hidden_features,):
        raise errors.ArgumentError(
            f"The carry of this {layer} has {hidden_features} features, but the carry of the call has the shape "
            f"{shape}.",
            "Pass a carry from initialize_carry, or the carry that the previous call returned.",
        )
