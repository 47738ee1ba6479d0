"""A recurrent layer: a cell applied to one step of a sequence after another."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.compilation.shape import eval_shape
from liftnn._src.control_flow.loop_axes import Carry
from liftnn._src.control_flow.scan import scan
from liftnn._src.filters import All, Filter
from liftnn._src.modules.module import Module
from liftnn._src.nn.arguments import as_input
from liftnn._src.nn.carries import carry_stream, fork, stream_of_layer
from liftnn._src.nn.cells import RNNCellBase
from liftnn._src.nn.explicit_axes import entries_of, mesh_of, place_like, whole_along
from liftnn._src.nn.sequences import as_lengths, flip_sequences, select_last
from liftnn._src.prefixes.prefix import StateAxes
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs, RngStream
from liftnn._src.split_rngs import select_streams, split_rngs
from liftnn._src.trees import an
from liftnn._src.variables.variable_types import RngState


class RNN(Module):
    """Apply a recurrent cell to a sequence, with `liftnn.scan`.

    What the cell writes in one step (statistics, counters, random streams) is visible in the next one and stays in the
    cell.

    Args:
      cell: The cell, such as a `GRUCell`.
      time_major: Whether axis 0 of input and output is time. With the default, False, time is the axis before the
        features.
      return_carry: Whether the carry after the last step is returned too; False by default.
      reverse: Whether the sequence is processed from its end to its start; False by default.
      keep_order: Whether the output of a reversed sequence has the order of the input. With the default, False, the
        output of the last step of the input comes first.
      unroll: The number of steps to unroll into one iteration of the loop, or True for all; 1 by default.
      state_axes: A mapping of filters to axes for the Variables of the cell: an int if each step has its own slice, or
        `Carry` or None if all steps share the Variable. The default, None, means that all are shared.
      broadcast_rngs: A filter that selects streams of the cell, such as `"dropout"`: all steps of a call draw the same
        keys from them, and each call others. The default, None, selects none.
      rngs: The random keys of the initial carry: an `Rngs` seeds a stream of the layer with a key of its stream
        `carry`, a stream is used itself. The default, True, means a stream with seed 0; False means none.

    Raises:
      ArgumentError: If `cell` is not a cell, or if `rngs` is neither an `Rngs`, nor a stream, nor a bool.
      FilterError: If `state_axes` or `broadcast_rngs` contains an object that is not a filter.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> rnn = liftnn.RNN(liftnn.GRUCell(3, 4, rngs=liftnn.Rngs(0)), return_carry=True)
      >>> carry, y = rnn(jnp.ones((2, 10, 3)), seq_lengths=jnp.array([10, 7]))
      >>> carry.shape, y.shape
      ((2, 4), (2, 10, 4))
    """

    def __init__(
        self,
        cell: RNNCellBase,
        *,
        time_major: bool = False,
        return_carry: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
        unroll: int | bool = 1,
        state_axes: Mapping[Any, Any] | StateAxes | None = None,
        broadcast_rngs: Filter = None,
        rngs: Rngs | RngStream | bool = True,
    ):
        if isinstance(cell, type):
            raise errors.ArgumentError(
                f"RNN applies a recurrent cell, but cell is the class {cell.__qualname__}.",
                f"Create the cell: `{cell.__qualname__}(...)` in place of `{cell.__qualname__}`.",
            )
        if not hasattr(cell, "num_feature_axes") or not hasattr(cell, "initialize_carry"):
            raise errors.ArgumentError(
                f"RNN applies a recurrent cell, but cell is of type {type(cell).__qualname__}.",
                "Pass a cell such as a liftnn.GRUCell, or a subclass of liftnn.RNNCellBase.",
            )
        All(broadcast_rngs)  # raises if it is not a filter
        self.cell = cell
        self.time_major, self.return_carry = time_major, return_carry
        self.reverse, self.keep_order, self.unroll = reverse, keep_order, unroll
        self.rngs = stream_of_layer("RNN", rngs)
        self.state_axes = StateAxes(state_axes) if isinstance(state_axes, Mapping) else state_axes
        self.broadcast_rngs = broadcast_rngs

    def __call__(
        self,
        inputs: jax.Array,
        *,
        initial_carry: Any = None,
        seq_lengths: jax.Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: Rngs | RngStream | None = None,
    ) -> Any:
        """Apply the cell to all steps.

        Args:
          inputs: Array of shape `(..., time, features)`, or `(time, ..., features)` if it is time major. The cell's
            `num_feature_axes` is the number of feature axes.
          initial_carry: The carry of the first step. The default, None, means `cell.initialize_carry`.
          seq_lengths: The length of each sequence, integers of the shape of the batch axes. The carry is then that
            after the last step of each sequence, and `reverse` reverses each sequence within its length. Steps of the
            padding are computed too. A sequence of length 0 has the carry after all steps. The default, None, means
            that all sequences are as long as the time axis.
          return_carry: Whether the carry is returned. The default, None, uses the layer's setting, as for the next
            three.
          time_major: Whether axis 0 is time.
          reverse: Whether the sequence is processed from its end to its start.
          keep_order: Whether the output of a reversed sequence has the order of the input.
          rngs: The random keys of the initial carry: an `Rngs` or a stream. The default, None, uses the layer's stream.

        Returns:
          The outputs of all steps, stacked along the time axis; with `return_carry`, the pair of carry and outputs.

        Raises:
          ArgumentError: If the input has too few axes or features, if `seq_lengths` or `initial_carry` does not fit, or
            if there are no random keys for the initial carry.
          StructureError: If a step after the first one changes structure, shapes or dtypes of the carry.
        """
        return_carry = self.return_carry if return_carry is None else return_carry
        reverse = self.reverse if reverse is None else reverse
        keep_order = self.keep_order if keep_order is None else keep_order
        inputs, features = as_input("RNN", inputs), self.cell.num_feature_axes
        _check_axes(inputs.shape, features)
        time_axis = (
            0 if (self.time_major if time_major is None else time_major) else inputs.ndim - features - 1
        )
        inputs = whole_along(inputs, (time_axis,))
        step_shape = (*inputs.shape[:time_axis], *inputs.shape[time_axis + 1 :])
        batch = step_shape[: len(step_shape) - features]
        lengths = None if seq_lengths is None else as_lengths(seq_lengths, batch)
        if reverse:
            inputs = flip_sequences(inputs, lengths, time_axis)
        stream = carry_stream("RNN", self.rngs if rngs is None else rngs)
        if stream is not None and isinstance(rngs, Rngs):
            stream = fork(stream)  # also with `initial_carry`, as in Flax, so that later keys are the same
        if initial_carry is None:
            initial_carry = self.cell.initialize_carry(step_shape, stream)
        try:
            carry, carries, outputs = self._scan(
                inputs, initial_carry, time_axis, lengths is not None and return_carry
            )
        except (TypeError, ValueError):
            self._check_carry(initial_carry, step_shape, stream)
            raise
        if reverse and keep_order:
            outputs = jax.tree.map(lambda y: flip_sequences(y, lengths, time_axis), outputs)
        if not return_carry:
            return outputs
        if lengths is not None and inputs.shape[time_axis]:
            carry = jax.tree.map(lambda x: select_last(x, lengths), carries)
        return carry, outputs

    def _check_carry(self, carry: Any, step_shape: tuple[int, ...], stream: RngStream | None) -> None:
        """Raise ArgumentError if the initial carry is not like that of the cell for inputs of this shape."""
        expected = eval_shape(lambda cell: cell.initialize_carry(step_shape, stream), self.cell)
        found, wanted = (jax.tree.map(jnp.shape, x) for x in (carry, expected))
        if found != wanted:
            raise errors.ArgumentError(
                f"The `initial_carry` of this RNN has the shape {found}, but for steps of shape {step_shape} the carry "
                f"of its cell, {an(type(self.cell))}, has the shape {wanted}.",
                f"Pass a carry from `rnn.cell.initialize_carry({step_shape})`, or one that a call with "
                "return_carry=True returned.",
            ) from None

    def _scan(self, inputs: jax.Array, carry: Any, time_axis: int, stack: bool) -> tuple[Any, Any, Any]:
        """Return the last carry, the carries of all steps if `stack` is True, and the outputs."""
        axes = self.state_axes
        if axes is not None:
            axes = StateAxes([(All(RngState, self.broadcast_rngs), None), *axes.pairs])
        run = scan(
            _step(self.broadcast_rngs, stack),
            in_axes=(axes, Carry, time_axis),
            out_axes=(Carry, 0, time_axis),
            unroll=self.unroll,
        )
        carry = self._placed(carry, inputs, time_axis)
        with self._one_key():
            return run(self.cell, carry, inputs)

    def _placed(self, carry: Any, inputs: jax.Array, time_axis: int) -> Any:
        """Return the initial carry with the sharding that the steps give it, on a mesh with explicit axes."""
        mesh = mesh_of(inputs, *jax.tree.leaves(carry))
        if mesh is None:
            return carry
        for _ in range(3):  # what a step returns may depend on where its carry is
            step = jax.numpy.take(inputs, 0, axis=time_axis)
            after = eval_shape(lambda cell, carry, x: cell(carry, x)[0], self.cell, carry, step)
            placed = jax.tree.map(lambda x, to: place_like(x, to, mesh), carry, after)
            if jax.tree.map(entries_of, placed) == jax.tree.map(entries_of, carry):
                return placed
            carry = placed
        return carry

    def _one_key(self) -> contextlib.AbstractContextManager[Any]:
        """Give each stream that `broadcast_rngs` selects a single new key for the time of a call."""
        if not select_streams(self.cell, self.broadcast_rngs):
            return contextlib.nullcontext()  # as after `eval()`, or with a cell without random keys
        return split_rngs(self.cell, splits=1, only=self.broadcast_rngs, squeeze=True)


def _step(broadcast_rngs: Filter, stack: bool) -> Callable[[Any, Any, Any], tuple[Any, Any, Any]]:
    """Return the function of one step, always the same one for the same filter, so that its loop is traced once."""
    try:
        return _kept_step(broadcast_rngs, stack)
    except TypeError:  # the filter is not hashable
        return _kept_step.__wrapped__(broadcast_rngs, stack)


@functools.lru_cache(maxsize=64)
def _kept_step(broadcast_rngs: Filter, stack: bool) -> Callable[[Any, Any, Any], tuple[Any, Any, Any]]:
    """Return the function of one step: cell, carry and input to carry, carry to stack or None, and output."""

    def step(cell: Any, carry: Any, x: Any) -> tuple[Any, Any, Any]:
        for stream in select_streams(cell, broadcast_rngs):
            stream.count.value = jnp.zeros_like(stream.count.value)
        carry, y = cell(carry, x)
        return carry, carry if stack else None, y

    return step


def _check_axes(shape: tuple[int, ...], features: int) -> None:
    """Raise ArgumentError if an input has no time axis."""
    if len(shape) <= features:
        raise errors.ArgumentError(
            f"RNN needs an input with a time axis and the feature axes of its cell ({features}), but its input has the "
            f"shape {shape}.",
            "Pass an array of shape (batch, time, features), or call the cell itself for one step.",
        )


publish(RNN)
