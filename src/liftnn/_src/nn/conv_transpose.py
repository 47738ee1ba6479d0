"""Transposed convolution over any number of spatial dimensions, channels last."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.foreign_names.attributes import answer
from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes, initializers
from liftnn._src.nn.arguments import add_bias, as_tuple, check_mask, new_param
from liftnn._src.nn.conv import masked
from liftnn._src.nn.explicit_axes import automatic, convolution_sharding
from liftnn._src.nn.linear import default_bias_init, default_kernel_init
from liftnn._src.nn.sizes import check_size_tuples, check_sizes
from liftnn._src.nn.windows import Padding, canonicalize_padding, fold_batch, per_dimension, unfold_batch
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs

TRANSPOSED_PADDINGS = ("SAME", "VALID", "CIRCULAR")
"""The named paddings of a transposed convolution."""


class ConvTranspose(Module):
    """Apply a transposed convolution, as `jax.lax.conv_transpose`, and add a bias.

    Args:
      in_features: Number of input features, the size of the input's last axis.
      out_features: Number of output features.
      kernel_size: Size of the kernel along each spatial dimension; an int is one dimension.
      strides: The upsampling factor: one int for all dimensions, or one for each. The default, None, means 1.
      padding: `"SAME"` (the default: the output size is the input size times the stride), `"VALID"` (the full output),
        `"CIRCULAR"` (the size of SAME, periodic), an int for all sides, or for each dimension an int or a pair `(low,
        high)`. Numbers count the zeros around the dilated input: to invert the shape of a `Conv` with `padding=p`, pass
        `kernel_dilation * (kernel_size - 1) - p`.
      kernel_dilation: The dilation of the kernel: one int, or one for each dimension. The default, None, means 1.
      use_bias: Whether a bias of shape `(out_features,)` is added; True by default.
      mask: Array of the kernel's shape, multiplied with the kernel. The default, None, means no mask.
      dtype: Dtype of the computation. The default, None, infers it from input and weights.
      param_dtype: Dtype of the weights; float32 by default.
      precision: Precision of the products, as in `jax.lax.conv_transpose`. The default, None, means the backend's
        default.
      kernel_init: Initializer of the kernel of shape `(*kernel_size, in_features, out_features)`; LeCun normal by
        default.
      bias_init: Initializer of the bias; zeros by default.
      transpose_kernel: Whether the kernel is flipped along its spatial axes and has the shape `(*kernel_size,
        out_features, in_features)`. With the kernel of a `Conv`, the layer is then the transpose of that `Conv`. False
        by default.
      promote_dtype: A function that casts `(inputs, kernel, bias)` to a common dtype; by default
        `dtypes.promote_dtype`.
      preferred_element_type: Dtype in which the products are accumulated and returned. The default, None, means the
        dtype of the operands.
      rngs: The random keys: each weight draws one from the stream `params`.
      kernel_metadata: Metadata of the kernel's Param; none by default.
      bias_metadata: Metadata of the bias's Param; none by default.

    Raises:
      ArgumentError: If the padding is unknown, the mask does not have the kernel's shape, or `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> layer = liftnn.ConvTranspose(8, 3, kernel_size=(3, 3), strides=2, rngs=liftnn.Rngs(0))
      >>> layer(jnp.ones((1, 14, 14, 8))).shape
      (1, 28, 28, 3)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = None,
        *,
        padding: Padding = "SAME",
        kernel_dilation: int | Sequence[int] | None = None,
        use_bias: bool = True,
        mask: jax.Array | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: initializers.Initializer = default_kernel_init,
        bias_init: initializers.Initializer = default_bias_init,
        transpose_kernel: bool = False,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        preferred_element_type: DTypeLike | None = None,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        check_sizes(self, in_features=in_features, out_features=out_features)
        check_size_tuples(self, kernel_size=kernel_size)
        self.kernel_size = as_tuple(kernel_size)
        features = (out_features, in_features) if transpose_kernel else (in_features, out_features)
        self.kernel_shape = (*self.kernel_size, *features)
        check_mask(mask, self.kernel_shape)
        _padding(padding, len(self.kernel_size))
        self.kernel = new_param(rngs, kernel_init, self.kernel_shape, param_dtype, kernel_metadata)
        bias = (out_features,)
        self.bias = new_param(rngs, bias_init, bias, param_dtype, bias_metadata) if use_bias else None
        self.in_features, self.out_features = in_features, out_features
        self.strides, self.padding, self.kernel_dilation = strides, padding, kernel_dilation
        self.use_bias, self.mask, self.transpose_kernel = use_bias, mask, transpose_kernel
        self.dtype, self.param_dtype, self.precision = dtype, param_dtype, precision
        self.promote_dtype, self.preferred_element_type = promote_dtype, preferred_element_type

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Apply the transposed convolution to the inputs and add the bias.

        Args:
          inputs: Array of shape `(*batch, *space, in_features)` with any number of batch axes, including none.

        Returns:
          Array of shape `(*batch, *space, out_features)`, of the dtype of the computation. Strides and padding
          determine the sizes of its spatial axes.

        Raises:
          ArgumentError: If the inputs have too few axes or not the number of features of the layer.
        """
        rank = len(self.kernel_size)
        features = dtypes.value_of(self.kernel).shape[-1 if self.transpose_kernel else -2]
        inputs, batch = fold_batch("ConvTranspose", inputs, rank, features)
        strides, padding = per_dimension("strides", self.strides, rank), _padding(self.padding, rank)
        inputs, kernel, bias = self.promote_dtype(
            (inputs, masked(dtypes.value_of(self.kernel), self.mask), dtypes.value_of(self.bias)),
            dtype=self.dtype,
        )
        convolve = functools.partial(
            lax.conv_transpose,
            strides=strides,
            padding="VALID" if padding == "CIRCULAR" else padding,
            rhs_dilation=per_dimension("kernel_dilation", self.kernel_dilation, rank),
            transpose_kernel=self.transpose_kernel,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )
        sharding = convolution_sharding(inputs, kernel, kernel.ndim - (2 if self.transpose_kernel else 1))
        y = (
            convolve(inputs, kernel)
            if sharding is None
            else automatic(convolve, sharding.spec, inputs, kernel)
        )
        if padding == "CIRCULAR":
            periods = [size * step for size, step in zip(inputs.shape[1:-1], strides, strict=True)]
            y = _wrap(y, periods, self.transpose_kernel)
        return unfold_batch(add_bias(y, bias), batch)


def _padding(padding: Padding, rank: int) -> Any:
    """Return the canonical padding; raise ArgumentError if a transposed convolution does not support it."""
    canonical = canonicalize_padding(padding, rank)
    if isinstance(canonical, str) and canonical not in TRANSPOSED_PADDINGS:
        raise errors.ArgumentError(
            f"A transposed convolution does not support padding={padding!r}.",
            f"Pass one of {', '.join(map(repr, TRANSPOSED_PADDINGS))}, or numbers.",
        )
    return canonical


def _wrap(y: jax.Array, periods: list[int], transpose_kernel: bool) -> jax.Array:
    """Sum all outputs that are a whole number of periods apart.

    The output is first padded with zeros to an odd number of periods, so that the input stays centered. If the number
    of zeros is odd, the extra zero is at the end for a transposed kernel, which makes the layer the transpose of a
    circular `Conv`, and at the start otherwise.

    Args:
      y: Array of shape `(batch, *space, features)`.
      periods: Size of the result along each spatial dimension.
      transpose_kernel: Whether the kernel is transposed.

    Returns:
      Array of shape `(batch, *periods, features)`.
    """
    missing = [(period - size) % (2 * period) for size, period in zip(y.shape[1:-1], periods, strict=True)]
    halves = [(m // 2, m - m // 2) for m in missing]
    y = jnp.pad(y, [(0, 0), *(half if transpose_kernel else half[::-1] for half in halves), (0, 0)])
    for axis, period in enumerate(periods, 1):
        y = y.reshape((*y.shape[:axis], y.shape[axis] // period, period, *y.shape[axis + 1 :])).sum(axis)
    return y


answer(ConvTranspose)
publish(ConvTranspose)
