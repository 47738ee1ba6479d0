"""The transposed convolution: the shapes of a convolution the other way round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes, initializers
from liftnn._src.nn.arguments import add_bias, as_tuple, check_mask, new_param
from liftnn._src.nn.conv import masked
from liftnn._src.nn.linear import default_bias_init, default_kernel_init
from liftnn._src.nn.windows import Padding, canonicalize_padding, fold_batch, per_dimension, unfold_batch
from liftnn._src.rngs import Rngs

PADDINGS = ("SAME", "VALID", "CIRCULAR")
"""The paddings with a name that a transposed convolution has."""


class ConvTranspose(Module):
    """Applies a transposed convolution, as `jax.lax.conv_transpose` does, and adds a bias.

    Args:
      in_features: Number of input features, the size of the input's last axis.
      out_features: Number of output features.
      kernel_size: Size of the kernel along each spatial dimension; an int is one dimension.
      strides: How many outputs one step in the input makes: one int for all dimensions, or one for each. The default,
        None, is 1.
      padding: `"SAME"` (the default: output as large as input times stride), `"VALID"` (all outputs that an input
        reaches), `"CIRCULAR"` (as SAME, and the output goes round), an int for all sides, or for each dimension an
        int or a pair `(low, high)`. Numbers count the zeros around the dilated input: to undo the shape of a `Conv`
        with `padding=p`, give `kernel_dilation * (kernel_size - 1) - p`.
      kernel_dilation: Distance between the outputs that neighbours in the kernel reach: one int, or one for each
        dimension. The default, None, is 1.
      use_bias: Whether a bias of shape `(out_features,)` is added; True by default.
      mask: Array of the kernel's shape that the kernel is multiplied by. The default is None.
      dtype: Dtype of the computation. The default, None, infers it from input and weights.
      param_dtype: Dtype of the weights; float32 by default.
      precision: Precision of the products, as in `jax.lax.conv_transpose`. The default, None, is the backend's own.
      kernel_init: Initializer of the kernel of shape `(*kernel_size, in_features, out_features)`; LeCun normal by
        default.
      bias_init: Initializer of the bias; zeros by default.
      transpose_kernel: Whether the kernel is flipped along space and its shape is `(*kernel_size, out_features,
        in_features)`, so that the layer with the kernel of a `Conv` is that layer's transpose. False by default.
      promote_dtype: Brings `(inputs, kernel, bias)` to one dtype; by default to `dtype`.
      preferred_element_type: Dtype in which the products are accumulated and returned. The default, None, is the
        dtype of the operands.
      rngs: Source of the keys; one of the `params` stream for each weight.
      kernel_metadata: Metadata of the kernel's Param; none by default.
      bias_metadata: Metadata of the bias's Param; none by default.

    Raises:
      ArgumentError: If the padding is unknown, the mask has not the kernel's shape, or `rngs` is not a `Rngs`.

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
        """Applies the transposed convolution to the inputs and adds the bias.

        Args:
          inputs: Array of shape `(*batch, *space, in_features)` with any number of batch axes, also none.

        Returns:
          Array of shape `(*batch, *space, out_features)`, its space as large as strides and padding make it, of the
          dtype of the computation.

        Raises:
          ArgumentError: If the inputs have too few axes or another number of features than the layer.
        """
        rank = len(self.kernel_size)
        features = self.kernel.value.shape[-1 if self.transpose_kernel else -2]
        inputs, batch = fold_batch("ConvTranspose", inputs, rank, features)
        strides, padding = per_dimension("strides", self.strides, rank), _padding(self.padding, rank)
        inputs, kernel, bias = self.promote_dtype(
            (inputs, masked(self.kernel.value, self.mask), dtypes.value_of(self.bias)), dtype=self.dtype
        )
        y = lax.conv_transpose(
            inputs,
            kernel,
            strides,
            "VALID" if padding == "CIRCULAR" else padding,
            rhs_dilation=per_dimension("kernel_dilation", self.kernel_dilation, rank),
            transpose_kernel=self.transpose_kernel,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )
        if padding == "CIRCULAR":
            periods = [size * step for size, step in zip(inputs.shape[1:-1], strides, strict=True)]
            y = _wrap(y, periods, self.transpose_kernel)
        return unfold_batch(add_bias(y, bias), batch)


def _padding(padding: Padding, rank: int) -> Any:
    """The padding in canonical form; raises if a transposed convolution has none of that name."""
    canonical = canonicalize_padding(padding, rank)
    if isinstance(canonical, str) and canonical not in PADDINGS:
        raise errors.ArgumentError(
            f"A transposed convolution has no padding {padding!r}.",
            f"Give one of {', '.join(map(repr, PADDINGS))}, or numbers.",
        )
    return canonical


def _wrap(y: jax.Array, periods: list[int], transpose_kernel: bool) -> jax.Array:
    """Adds up all outputs that lie a whole number of periods apart.

    The output is first filled up with zeros to an odd number of periods, so that its middle is where the input was.
    An odd number of zeros cannot be shared evenly: the one more goes to the end if the kernel is transposed, which
    makes the layer the transpose of a circular `Conv`, else to the start.

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
        y = y.reshape((*y.shape[:axis], -1, period, *y.shape[axis + 1 :])).sum(axis)
    return y
