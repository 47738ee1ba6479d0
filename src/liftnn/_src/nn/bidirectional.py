"""A recurrent layer in both directions of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.nn.carries import carry_stream, stream_of_layer
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs, RngStream


def _concatenate(forward: jax.Array, backward: jax.Array) -> jax.Array:
    """Concatenate the features of both directions."""
    return jnp.concatenate([forward, backward], axis=-1)


class Bidirectional(Module):
    """Apply two recurrent layers to a sequence, one in each direction, and merge their outputs.

    Both may be the same layer; the directions then share the weights.

    Args:
      forward_rnn: An `RNN`, or a module that is called like one, for the direction from start to end.
      backward_rnn: The same for the direction from end to start.
      merge_fn: A function `(forward, backward) -> merged` of the outputs at the same steps. By default it concatenates
        the features.
      time_major: Whether axis 0 of input and output is time. With the default, False, time is the axis before the
        features.
      return_carry: Whether the carries of both directions are returned too; False by default.
      rngs: The random keys of the first carries: an `Rngs` seeds a stream of the layer with a key of its stream
        `carry`, a stream is used itself. The default, True, means a stream with seed 0; False means that `forward_rnn`
        and `backward_rnn` use their own.

    Raises:
      ArgumentError: If `rngs` is neither an `Rngs`, nor a stream, nor a bool, or if one of the layers is a cell.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> rngs = liftnn.Rngs(0)
      >>> forward, backward = (liftnn.RNN(liftnn.GRUCell(3, 4, rngs=rngs)) for _ in range(2))
      >>> liftnn.Bidirectional(forward, backward)(jnp.ones((2, 10, 3))).shape
      (2, 10, 8)

    References:
      Schuster and Paliwal, Bidirectional Recurrent Neural Networks, https://doi.org/10.1109/78.650093
    """

    def __init__(
        self,
        forward_rnn: Callable[..., Any],
        backward_rnn: Callable[..., Any],
        *,
        merge_fn: Callable[[Any, Any], Any] = _concatenate,
        time_major: bool = False,
        return_carry: bool = False,
        rngs: Rngs | RngStream | bool = True,
    ):
        _check_layer("forward_rnn", forward_rnn)
        _check_layer("backward_rnn", backward_rnn)
        self.forward_rnn, self.backward_rnn, self.merge_fn = forward_rnn, backward_rnn, merge_fn
        self.time_major, self.return_carry = time_major, return_carry
        self.rngs = stream_of_layer("Bidirectional", rngs)

    def __call__(
        self,
        inputs: jax.Array,
        *,
        initial_carry: tuple[Any, Any] | None = None,
        rngs: Rngs | RngStream | None = None,
        seq_lengths: jax.Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Apply both layers and merge their outputs.

        Args:
          inputs: Array of shape `(..., time, features)`, or `(time, ..., features)` if it is time major.
          initial_carry: The pair of first carries, forward and backward. The default, None, means those of the cells.
          rngs: The random keys of the first carries: an `Rngs` or a stream. The default, None, uses the layer's stream.
          seq_lengths: The length of each sequence, as in `RNN`. The default, None, means that all sequences are as long
            as the time axis.
          return_carry: Whether the carries are returned. The default, None, uses the layer's setting, as for the next.
          time_major: Whether axis 0 is time.
          reverse: Ignored: both directions are computed. It is there so that the layer is called like an `RNN`.
          keep_order: Ignored: the output has the order of the input.

        Returns:
          The merged outputs; with `return_carry`, the pair of carries and outputs. The carries are a pair, forward and
          backward.

        Raises:
          ArgumentError: If `initial_carry` is not a pair, or if an argument does not fit the layers, as in `RNN`.
        """
        if initial_carry is not None and (
            not isinstance(initial_carry, (tuple, list)) or len(initial_carry) != 2
        ):
            raise errors.ArgumentError(
                "The `initial_carry` of a Bidirectional is a pair of carries, forward and backward, but that of the "
                f"call is of type {type(initial_carry).__qualname__}.",
                "Pass a pair, or the carries that a call with return_carry=True returned.",
            )
        return_carry = self.return_carry if return_carry is None else return_carry
        shared: dict[str, Any] = {
            "rngs": carry_stream("Bidirectional", self.rngs if rngs is None else rngs),
            "seq_lengths": seq_lengths,
            "return_carry": True,
            "time_major": self.time_major if time_major is None else time_major,
        }
        first, last = (None, None) if initial_carry is None else initial_carry
        forward, ahead = self.forward_rnn(inputs, initial_carry=first, reverse=False, **shared)
        backward, back = self.backward_rnn(
            inputs, initial_carry=last, reverse=True, keep_order=True, **shared
        )
        outputs = jax.tree.map(self.merge_fn, ahead, back)
        return ((forward, backward), outputs) if return_carry else outputs


def _check_layer(name: str, layer: Any) -> None:
    """Raise ArgumentError if a layer of a Bidirectional is a cell, is a class, or cannot be called."""
    if isinstance(layer, type):
        raise errors.ArgumentError(
            f"Bidirectional applies recurrent layers, but {name} is the class {layer.__qualname__}.",
            f"Create the layer: `{layer.__qualname__}(...)` in place of `{layer.__qualname__}`.",
        )
    if not callable(layer) or hasattr(layer, "num_feature_axes"):
        raise errors.ArgumentError(
            f"Bidirectional applies recurrent layers, but {name} is of type {type(layer).__qualname__}.",
            "Wrap a cell in liftnn.RNN, as in Bidirectional(RNN(forward_cell), RNN(backward_cell)).",
        )


publish(Bidirectional)
