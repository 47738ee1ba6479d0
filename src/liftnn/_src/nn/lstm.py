"""Cells of long short-term memory (LSTM), with separate or concatenated kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.nn import dtypes, initializers
from liftnn._src.nn.arguments import check_features, check_functions, shape_of_input
from liftnn._src.nn.carries import check_hidden, draw_carry, stream_of_layer
from liftnn._src.nn.cells import RNNCellBase
from liftnn._src.nn.linear import Linear, default_bias_init, default_kernel_init
from liftnn._src.nn.orthogonal import orthogonal, orthogonal_then_cast
from liftnn._src.nn.sizes import check_sizes
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs, RngStream

Memory = tuple[jax.Array, jax.Array]


class _MemoryCell(RNNCellBase):
    """A cell whose carry is a memory and a hidden state, both of shape `(..., hidden_features)`."""

    in_features: int
    hidden_features: int
    gate_fn: Callable[..., Any]
    activation_fn: Callable[..., Any]

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: Rngs | RngStream | None = None,
        carry_init: initializers.Initializer | None = None,
    ) -> Memory:
        """Create the carry of the first step."""
        memory, hidden = draw_carry(self, 2, input_shape, rngs, carry_init)
        return memory, hidden

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of the input of one step: 1."""
        return 1

    def _check(self, carry: Any, inputs: Any) -> Memory:
        """Return the memory and the hidden state; raise ArgumentError if a size is wrong."""
        name = type(self).__qualname__
        check_features(name, shape_of_input(name, inputs), -1, self.in_features)
        if not isinstance(carry, (tuple, list)) or len(carry) != 2:
            raise errors.ArgumentError(
                f"The carry of this {name} is a pair of arrays, memory and hidden state, but the carry of the call is "
                f"of type {type(carry).__qualname__}.",
                "Pass a carry from initialize_carry, or the carry that the previous call returned.",
            )
        memory, hidden = carry
        check_hidden(name, memory, self.hidden_features)
        check_hidden(name, hidden, self.hidden_features)
        return memory, hidden

    def _step(
        self, memory: jax.Array, i: jax.Array, f: jax.Array, g: jax.Array, o: jax.Array
    ) -> tuple[Memory, jax.Array]:
        """Compute the new carry and the output from the arguments of the activation functions."""
        i, f, g, o = self.gate_fn(i), self.gate_fn(f), self.activation_fn(g), self.gate_fn(o)
        memory = f * memory + i * g
        hidden = o * self.activation_fn(memory)
        return (memory, hidden), hidden


class LSTMCell(_MemoryCell):
    """Compute one step of a long short-term memory.

    The carry is a pair `(c, h)`: the memory and the hidden state, both of shape `(..., hidden_features)`. The output is
    the new hidden state:

        i = gate_fn(x @ W_ii + h @ W_hi + b_hi)
        f = gate_fn(x @ W_if + h @ W_hf + b_hf)
        g = activation_fn(x @ W_ig + h @ W_hg + b_hg)
        o = gate_fn(x @ W_io + h @ W_ho + b_ho)
        c' = f * c + i * g
        h' = o * activation_fn(c')

    Each kernel belongs to a layer of its own: `ii`, `if_`, `ig`, `io`, `hi`, `hf`, `hg`, `ho`.

    Args:
      in_features: Number of input features.
      hidden_features: Number of hidden and output features.
      gate_fn: The activation function of the gates `i`, `f` and `o`; `sigmoid` by default.
      activation_fn: The activation function of the candidate `g` and of the memory; `tanh` by default.
      kernel_init: Initializer of each input kernel of shape `(in_features, hidden_features)`; LeCun normal by default.
      recurrent_kernel_init: Initializer of each recurrent kernel of shape `(hidden_features, hidden_features)`;
        orthogonal by default.
      bias_init: Initializer of each bias of shape `(hidden_features,)`; zeros by default.
      dtype: Dtype of the computation. The default, None, infers it from input, carry and weights.
      param_dtype: Dtype of the weights and of the initial carry; float32 by default.
      carry_init: Initializer of both arrays of the initial carry. The default, None, means zeros.
      promote_dtype: A function that casts `(inputs, kernel, bias)` to a common dtype; by default
        `dtypes.promote_dtype`.
      keep_rngs: Whether the cell keeps a stream of random keys, for calls of `initialize_carry` without `rngs`; False
        by default.
      rngs: The random keys: each weight draws one from the stream `params`, and a stream to keep one from `carry`.
      kernel_metadata: Metadata of the input kernels' Params; none by default.
      recurrent_kernel_metadata: Metadata of the recurrent kernels' Params; none by default.
      bias_metadata: Metadata of the biases' Params; none by default.

    Raises:
      ArgumentError: If `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> cell = liftnn.LSTMCell(3, 4, rngs=liftnn.Rngs(0))
      >>> carry = cell.initialize_carry((2, 3), liftnn.Rngs(1))
      >>> (c, h), y = cell(carry, jnp.ones((2, 3)))
      >>> c.shape, y.shape
      ((2, 4), (2, 4))

    References:
      Hochreiter and Schmidhuber, Long Short-Term Memory, https://doi.org/10.1162/neco.1997.9.8.1735
      Gers et al., Learning to Forget, https://doi.org/10.1162/089976600300015015
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        gate_fn: Callable[..., Any] = jax.nn.sigmoid,
        activation_fn: Callable[..., Any] = jnp.tanh,
        kernel_init: initializers.Initializer = default_kernel_init,
        recurrent_kernel_init: initializers.Initializer = orthogonal_then_cast,
        bias_init: initializers.Initializer = default_bias_init,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        carry_init: initializers.Initializer | None = None,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        keep_rngs: bool = False,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        recurrent_kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        check_sizes(self, in_features=in_features, hidden_features=hidden_features)
        self.in_features, self.hidden_features = in_features, hidden_features
        check_functions(self, gate_fn=gate_fn, activation_fn=activation_fn)
        self.gate_fn, self.activation_fn = gate_fn, activation_fn
        self.dtype, self.param_dtype, self.promote_dtype = dtype, param_dtype, promote_dtype
        self.rngs = stream_of_layer("LSTMCell", rngs if keep_rngs else False)
        shared: dict[str, Any] = {
            "dtype": dtype, "param_dtype": param_dtype, "promote_dtype": promote_dtype, "rngs": rngs,
        }  # fmt: skip

        def of_input() -> Linear:
            options: dict[str, Any] = {"kernel_init": kernel_init, "kernel_metadata": kernel_metadata}
            return Linear(in_features, hidden_features, use_bias=False, **options, **shared)

        def of_hidden() -> Linear:
            options: dict[str, Any] = {"bias_init": bias_init, "bias_metadata": bias_metadata}
            options |= {"kernel_init": recurrent_kernel_init, "kernel_metadata": recurrent_kernel_metadata}
            return Linear(hidden_features, hidden_features, **options, **shared)

        self.ii, self.if_, self.ig, self.io = of_input(), of_input(), of_input(), of_input()
        self.hi, self.hf, self.hg, self.ho = of_hidden(), of_hidden(), of_hidden(), of_hidden()
        self.carry_init = carry_init

    def __call__(self, carry: Memory, inputs: jax.Array) -> tuple[Memory, jax.Array]:
        """Compute one step.

        Args:
          carry: The memory and the hidden state, both of shape `(..., hidden_features)`.
          inputs: The input of this step, of shape `(..., in_features)`.

        Returns:
          The new carry, and the new hidden state as the output.

        Raises:
          ArgumentError: If the carry is not a pair, or if the last axis of an array has another size.
        """
        memory, hidden = self._check(carry, inputs)
        i = self.ii(inputs) + self.hi(hidden)
        f = self.if_(inputs) + self.hf(hidden)
        g = self.ig(inputs) + self.hg(hidden)
        o = self.io(inputs) + self.ho(hidden)
        return self._step(memory, i, f, g, o)


class OptimizedLSTMCell(_MemoryCell):
    """Compute one step of a long short-term memory, with one product for all gates.

    The formula, the carry and the output are those of `LSTMCell`. The kernels of the gates `i`, `f`, `g`, `o` are side
    by side in one kernel for the input and one for the hidden state, so that there are two large products in place of
    eight small ones.

    Args:
      in_features: Number of input features.
      hidden_features: Number of hidden and output features.
      gate_fn: The activation function of the gates `i`, `f` and `o`; `sigmoid` by default.
      activation_fn: The activation function of the candidate `g` and of the memory; `tanh` by default.
      kernel_init: Initializer of the input kernel of shape `(in_features, 4 * hidden_features)`; LeCun normal by
        default.
      recurrent_kernel_init: Initializer of the recurrent kernel of shape `(hidden_features, 4 * hidden_features)`;
        orthogonal by default.
      bias_init: Initializer of the bias of shape `(4 * hidden_features,)`; zeros by default.
      dtype: Dtype of the computation. The default, None, infers it from input, carry and weights.
      param_dtype: Dtype of the weights and of the initial carry; float32 by default.
      carry_init: Initializer of both arrays of the initial carry. The default, None, means zeros.
      promote_dtype: A function that casts `(inputs, kernel, bias)` to a common dtype; by default
        `dtypes.promote_dtype`.
      keep_rngs: Whether the cell keeps a stream of random keys, for calls of `initialize_carry` without `rngs`; False
        by default.
      rngs: The random keys: each weight draws one from the stream `params`, and a stream to keep one from `carry`.
      kernel_metadata: Metadata of the input kernel's Param; none by default.
      recurrent_kernel_metadata: Metadata of the recurrent kernel's Param; none by default.
      bias_metadata: Metadata of the bias's Param; none by default.

    Raises:
      ArgumentError: If `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> rnn = liftnn.RNN(liftnn.OptimizedLSTMCell(3, 4, rngs=liftnn.Rngs(0)))
      >>> rnn(jnp.ones((2, 10, 3))).shape
      (2, 10, 4)

    References:
      Hochreiter and Schmidhuber, Long Short-Term Memory, https://doi.org/10.1162/neco.1997.9.8.1735
      Gers et al., Learning to Forget, https://doi.org/10.1162/089976600300015015
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        gate_fn: Callable[..., Any] = jax.nn.sigmoid,
        activation_fn: Callable[..., Any] = jnp.tanh,
        kernel_init: initializers.Initializer = default_kernel_init,
        recurrent_kernel_init: initializers.Initializer = orthogonal,
        bias_init: initializers.Initializer = default_bias_init,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        carry_init: initializers.Initializer | None = None,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        keep_rngs: bool = False,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        recurrent_kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        check_sizes(self, in_features=in_features, hidden_features=hidden_features)
        self.in_features, self.hidden_features = in_features, hidden_features
        check_functions(self, gate_fn=gate_fn, activation_fn=activation_fn)
        self.gate_fn, self.activation_fn = gate_fn, activation_fn
        self.dtype, self.param_dtype, self.promote_dtype = dtype, param_dtype, promote_dtype
        self.rngs = stream_of_layer("OptimizedLSTMCell", rngs if keep_rngs else False)
        shared: dict[str, Any] = {
            "dtype": dtype, "param_dtype": param_dtype, "promote_dtype": promote_dtype, "rngs": rngs,
        }  # fmt: skip
        self.dense_i = Linear(
            in_features,
            4 * hidden_features,
            use_bias=False,
            kernel_init=kernel_init,
            kernel_metadata=kernel_metadata,
            **shared,
        )
        self.dense_h = Linear(
            hidden_features,
            4 * hidden_features,
            kernel_init=recurrent_kernel_init,
            bias_init=bias_init,
            kernel_metadata=recurrent_kernel_metadata,
            bias_metadata=bias_metadata,
            **shared,
        )
        self.carry_init = carry_init

    def __call__(self, carry: Memory, inputs: jax.Array) -> tuple[Memory, jax.Array]:
        """Compute one step.

        Args:
          carry: The memory and the hidden state, both of shape `(..., hidden_features)`.
          inputs: The input of this step, of shape `(..., in_features)`.

        Returns:
          The new carry, and the new hidden state as the output.

        Raises:
          ArgumentError: If the carry is not a pair, or if the last axis of an array has another size.
        """
        memory, hidden = self._check(carry, inputs)
        gates = self.dense_i(inputs) + self.dense_h(hidden)
        return self._step(memory, *jnp.split(gates, 4, axis=-1))


publish(LSTMCell, OptimizedLSTMCell)
