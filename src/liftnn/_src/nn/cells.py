"""Recurrent cells, one step of a sequence: their base class, and the cells whose carry is one array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes, initializers
from liftnn._src.nn.arguments import check_features, check_functions, shape_of_input
from liftnn._src.nn.carries import check_hidden, draw_carry, stream_of_layer
from liftnn._src.nn.linear import Linear, default_bias_init, default_kernel_init
from liftnn._src.nn.orthogonal import orthogonal
from liftnn._src.nn.sizes import check_sizes
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs, RngStream


class RNNCellBase(Module):
    """Base class of recurrent cells: a cell computes one step of a sequence, and `RNN` applies it to all steps.

    A subclass defines `__call__`, `initialize_carry` and `num_feature_axes`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> class CumulativeSum(liftnn.RNNCellBase):
      ...     num_feature_axes = 1
      ...     def initialize_carry(self, input_shape, rngs=None, carry_init=None):
      ...         return jnp.zeros(input_shape)
      ...     def __call__(self, carry, inputs):
      ...         return carry + inputs, carry + inputs
      >>> liftnn.RNN(CumulativeSum())(jnp.array([[1.0], [2.0], [3.0]])).tolist()
      [[1.0], [3.0], [6.0]]
    """

    def __call__(self, carry: Any, inputs: Any) -> tuple[Any, Any]:
        """Compute one step.

        Args:
          carry: The carry of the previous step: an array, or any pytree of arrays.
          inputs: The input of this step: an array whose last `num_feature_axes` axes are features, and whose other
            axes are batch axes.

        Returns:
          The new carry and the output of this step.

        Raises:
          NotImplementedError: If the subclass does not define this method.
        """
        raise NotImplementedError(f"{type(self).__qualname__} does not define __call__().")

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: Rngs | RngStream | None = None,
        carry_init: initializers.Initializer | None = None,
    ) -> Any:
        """Create the carry of the first step.

        Args:
          input_shape: Shape of the input of one step, such as `(batch, in_features)`.
          rngs: An `Rngs`, whose stream `carry` is used, or a stream: each array of the carry draws one key. The
            default, None, uses the stream that the cell keeps.
          carry_init: The initializer of each array. The default, None, uses the cell's own, which is zeros by default.

        Returns:
          The carry.

        Raises:
          NotImplementedError: If the subclass does not define this method.
        """
        raise NotImplementedError(f"{type(self).__qualname__} does not define initialize_carry().")

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of the input of one step: 1 for cells of vectors."""
        raise NotImplementedError(f"{type(self).__qualname__} does not define num_feature_axes.")


class _HiddenCell(RNNCellBase):
    """A cell whose carry is one array of hidden features, of shape `(..., hidden_features)`."""

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: Rngs | RngStream | None = None,
        carry_init: initializers.Initializer | None = None,
    ) -> jax.Array:
        """Create the carry of the first step."""
        return draw_carry(self, 1, input_shape, rngs, carry_init)[0]

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of the input of one step: 1."""
        return 1


class SimpleCell(_HiddenCell):
    """Compute one step of an Elman network: `h' = activation_fn(x @ W_i + b_i + h @ W_h)`.

    The carry is the hidden state `h` of shape `(..., hidden_features)`. The output is the new one.

    Args:
      in_features: Number of input features.
      hidden_features: Number of hidden and output features.
      dtype: Dtype of the computation; float32 by default. None infers it from input, carry and weights.
      param_dtype: Dtype of the weights and of the initial carry; float32 by default.
      carry_init: Initializer of the initial carry. The default, None, means zeros.
      residual: Whether the hidden state is added before the activation function; False by default.
      activation_fn: The activation function; `tanh` by default.
      kernel_init: Initializer of the input kernel of shape `(in_features, hidden_features)`; LeCun normal by default.
      recurrent_kernel_init: Initializer of the recurrent kernel of shape `(hidden_features, hidden_features)`;
        orthogonal by default.
      bias_init: Initializer of the bias of shape `(hidden_features,)`; zeros by default.
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
      >>> cell = liftnn.SimpleCell(3, 4, rngs=liftnn.Rngs(0))
      >>> carry = cell.initialize_carry((2, 3), liftnn.Rngs(1))
      >>> carry, y = cell(carry, jnp.ones((2, 3)))
      >>> y.shape
      (2, 4)

    References:
      Elman, Finding Structure in Time, https://doi.org/10.1207/s15516709cog1402_1
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        dtype: DTypeLike | None = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        carry_init: initializers.Initializer | None = None,
        residual: bool = False,
        activation_fn: Callable[..., Any] = jnp.tanh,
        kernel_init: initializers.Initializer = default_kernel_init,
        recurrent_kernel_init: initializers.Initializer = orthogonal,
        bias_init: initializers.Initializer = default_bias_init,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        keep_rngs: bool = False,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        recurrent_kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        check_sizes(self, in_features=in_features, hidden_features=hidden_features)
        self.in_features, self.hidden_features = in_features, hidden_features
        self.dtype, self.param_dtype, self.promote_dtype = dtype, param_dtype, promote_dtype
        check_functions(self, activation_fn=activation_fn)
        self.residual, self.activation_fn = residual, activation_fn
        self.rngs = stream_of_layer("SimpleCell", rngs if keep_rngs else False)
        shared: dict[str, Any] = {
            "dtype": dtype, "param_dtype": param_dtype, "promote_dtype": promote_dtype, "rngs": rngs,
        }  # fmt: skip
        self.dense_h = Linear(  # before dense_i: the order in which Flax draws the keys
            hidden_features,
            hidden_features,
            use_bias=False,
            kernel_init=recurrent_kernel_init,
            kernel_metadata=recurrent_kernel_metadata,
            **shared,
        )
        self.dense_i = Linear(
            in_features,
            hidden_features,
            kernel_init=kernel_init,
            bias_init=bias_init,
            kernel_metadata=kernel_metadata,
            bias_metadata=bias_metadata,
            **shared,
        )
        self.carry_init = carry_init

    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Compute one step.

        Args:
          carry: The hidden state, of shape `(..., hidden_features)`.
          inputs: The input of this step, of shape `(..., in_features)`.

        Returns:
          The new hidden state, twice: as the carry and as the output.

        Raises:
          ArgumentError: If the last axis of `inputs` or `carry` has another size.
        """
        check_features("SimpleCell", shape_of_input("SimpleCell", inputs), -1, self.in_features)
        check_hidden("SimpleCell", carry, self.hidden_features)
        hidden = self.dense_i(inputs) + self.dense_h(carry)
        if self.residual:
            hidden += carry
        hidden = self.activation_fn(hidden)
        return hidden, hidden


class GRUCell(_HiddenCell):
    """Compute one step of a gated recurrent unit.

    The carry is the hidden state `h` of shape `(..., hidden_features)`. The output is the new one:

        r = gate_fn(x @ W_ir + b_ir + h @ W_hr + b_hr)
        z = gate_fn(x @ W_iz + b_iz + h @ W_hz + b_hz)
        n = activation_fn(x @ W_in + b_in + r * (h @ W_hn + b_hn))
        h' = (1 - z) * n + z * h

    The kernels of the three are side by side in one kernel for the input and one for the hidden state. The biases
    `b_hr`, `b_hz` and `b_hn` are there if `use_hidden_bias` is True.

    Args:
      in_features: Number of input features.
      hidden_features: Number of hidden and output features.
      gate_fn: The activation function of the gates `r` and `z`; `sigmoid` by default.
      activation_fn: The activation function of the candidate `n`; `tanh` by default.
      kernel_init: Initializer of the input kernel of shape `(in_features, 3 * hidden_features)`; LeCun normal by
        default.
      recurrent_kernel_init: Initializer of the recurrent kernel of shape `(hidden_features, 3 * hidden_features)`;
        orthogonal by default.
      bias_init: Initializer of each bias of shape `(3 * hidden_features,)`; zeros by default.
      dtype: Dtype of the computation. The default, None, infers it from input, carry and weights.
      param_dtype: Dtype of the weights and of the initial carry; float32 by default.
      carry_init: Initializer of the initial carry. The default, None, means zeros.
      promote_dtype: A function that casts `(inputs, kernel, bias)` to a common dtype; by default
        `dtypes.promote_dtype`.
      keep_rngs: Whether the cell keeps a stream of random keys, for calls of `initialize_carry` without `rngs`; False
        by default.
      rngs: The random keys: each weight draws one from the stream `params`, and a stream to keep one from `carry`.
      kernel_metadata: Metadata of the input kernel's Param; none by default.
      recurrent_kernel_metadata: Metadata of the recurrent kernel's Param; none by default.
      bias_metadata: Metadata of the biases' Params; none by default.
      use_hidden_bias: Whether the product of the hidden state has a bias of its own, of shape `(3 * hidden_features,)`,
        as in PyTorch; False by default.

    Raises:
      ArgumentError: If `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> cell = liftnn.GRUCell(3, 4, rngs=liftnn.Rngs(0))
      >>> carry = cell.initialize_carry((2, 3), liftnn.Rngs(1))
      >>> carry, y = cell(carry, jnp.ones((2, 3)))
      >>> y.shape
      (2, 4)

    References:
      Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, https://arxiv.org/abs/1406.1078
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
        use_hidden_bias: bool = False,
    ):
        check_sizes(self, in_features=in_features, hidden_features=hidden_features)
        self.in_features, self.hidden_features = in_features, hidden_features
        check_functions(self, gate_fn=gate_fn, activation_fn=activation_fn)
        self.gate_fn, self.activation_fn = gate_fn, activation_fn
        self.dtype, self.param_dtype, self.promote_dtype = dtype, param_dtype, promote_dtype
        self.rngs = stream_of_layer("GRUCell", rngs if keep_rngs else False)
        shared: dict[str, Any] = {
            "dtype": dtype, "param_dtype": param_dtype, "promote_dtype": promote_dtype, "rngs": rngs,
        }  # fmt: skip
        self.dense_i = Linear(
            in_features,
            3 * hidden_features,
            kernel_init=kernel_init,
            bias_init=bias_init,
            kernel_metadata=kernel_metadata,
            bias_metadata=bias_metadata,
            **shared,
        )
        self.dense_h = Linear(
            hidden_features,
            3 * hidden_features,
            use_bias=use_hidden_bias,
            kernel_init=recurrent_kernel_init,
            bias_init=bias_init,
            kernel_metadata=recurrent_kernel_metadata,
            bias_metadata=bias_metadata,
            **shared,
        )
        self.carry_init = carry_init

    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Compute one step.

        Args:
          carry: The hidden state, of shape `(..., hidden_features)`.
          inputs: The input of this step, of shape `(..., in_features)`.

        Returns:
          The new hidden state, twice: as the carry and as the output.

        Raises:
          ArgumentError: If the last axis of `inputs` or `carry` has another size.
        """
        check_features("GRUCell", shape_of_input("GRUCell", inputs), -1, self.in_features)
        check_hidden("GRUCell", carry, self.hidden_features)
        x_reset, x_update, x_candidate = jnp.split(self.dense_i(inputs), 3, axis=-1)
        h_reset, h_update, h_candidate = jnp.split(self.dense_h(carry), 3, axis=-1)
        reset = self.gate_fn(x_reset + h_reset)
        update = self.gate_fn(x_update + h_update)
        candidate = self.activation_fn(x_candidate + reset * h_candidate)
        hidden = (1.0 - update) * candidate + update * carry
        return hidden, hidden


publish(GRUCell, RNNCellBase, SimpleCell)
