"""Convolution over any number of spatial dimensions, channels last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from liftnn._src.nn.arguments import add_bias, as_tuple, check_mask, new_param, without_none
from liftnn._src.nn.explicit_axes import convolution_sharding
from liftnn._src.nn.linear import default_bias_init, default_kernel_init
from liftnn._src.nn.sizes import check_size_tuples, check_sizes
from liftnn._src.nn.windows import (
    Padding,
    canonicalize_padding,
    fold_batch,
    pad_inputs,
    per_dimension,
    unfold_batch,
)
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs


class Conv(Module):
    """Convolve an input of shape `(*batch, *space, features)` with a kernel and add a bias.

    Args:
      in_features: Number of input features, the size of the input's last axis.
      out_features: Number of output features.
      kernel_size: Size of the kernel along each spatial dimension; an int is one dimension.
      strides: The stride of the window: one int for all dimensions, or one for each; 1 by default.
      padding: `"SAME"` (the default: with stride 1 the output has the size of the input), `"SAME_LOWER"`, `"VALID"` (no
        padding), `"CIRCULAR"` (periodic), `"REFLECT"` (mirrored), `"CAUSAL"` (one dimension, padded at the start only),
        an int for all sides, or for each dimension an int or a pair `(low, high)`.
      input_dilation: The dilation of the input, which inserts zeros between its entries: one int, or one for each
        dimension; 1 by default.
      kernel_dilation: The dilation of the kernel (atrous convolution): one int, or one for each dimension; 1 by
        default.
      feature_group_count: Number of groups of features that are convolved separately; 1 by default.
      use_bias: Whether a bias of shape `(out_features,)` is added; True by default.
      mask: Array of the kernel's shape, multiplied with the kernel. The default, None, means no mask.
      dtype: Dtype of the computation. The default, None, infers it from input and weights.
      param_dtype: Dtype of the weights; float32 by default.
      precision: Precision of the products, as in `jax.lax.conv_general_dilated`. The default, None, means the backend's
        default.
      kernel_init: Initializer of the kernel of shape `(*kernel_size, in_features // feature_group_count,
        out_features)`; LeCun normal by default.
      bias_init: Initializer of the bias; zeros by default.
      conv_general_dilated: The function that computes the convolution, `jax.lax.conv_general_dilated` by default.
      promote_dtype: A function that casts `(inputs, kernel, bias)` to a common dtype; by default
        `dtypes.promote_dtype`.
      preferred_element_type: Dtype in which the products are accumulated and returned. The default, None, means the
        dtype of the operands.
      rngs: The random keys: each weight draws one from the stream `params`.
      kernel_metadata: Metadata of the kernel's Param; none by default.
      bias_metadata: Metadata of the bias's Param; none by default.

    Raises:
      ArgumentError: If the padding is unknown, if it is named and `input_dilation` is not 1, if the groups do not
        divide the features, if the mask does not have the kernel's shape, or if `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> layer = liftnn.Conv(3, 8, kernel_size=(3, 3), strides=2, rngs=liftnn.Rngs(0))
      >>> layer(jnp.ones((1, 28, 28, 3))).shape
      (1, 14, 14, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = 1,
        *,
        padding: Padding = "SAME",
        input_dilation: int | Sequence[int] | None = 1,
        kernel_dilation: int | Sequence[int] | None = 1,
        feature_group_count: int = 1,
        use_bias: bool = True,
        mask: jax.Array | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: initializers.Initializer = default_kernel_init,
        bias_init: initializers.Initializer = default_bias_init,
        conv_general_dilated: Callable[..., jax.Array] = lax.conv_general_dilated,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        preferred_element_type: DTypeLike | None = None,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        check_sizes(
            self, in_features=in_features, out_features=out_features, feature_group_count=feature_group_count
        )
        check_size_tuples(self, kernel_size=kernel_size)
        self.kernel_size = as_tuple(kernel_size)
        _check_groups(in_features, out_features, feature_group_count)
        self.kernel_shape = (*self.kernel_size, in_features // feature_group_count, out_features)
        check_mask(mask, self.kernel_shape)
        _check_padding(padding, input_dilation, len(self.kernel_size))
        self.kernel = new_param(rngs, kernel_init, self.kernel_shape, param_dtype, kernel_metadata)
        bias = (out_features,)
        self.bias = new_param(rngs, bias_init, bias, param_dtype, bias_metadata) if use_bias else None
        self.in_features, self.out_features = in_features, out_features
        self.strides, self.padding = strides, padding
        self.input_dilation, self.kernel_dilation = input_dilation, kernel_dilation
        self.feature_group_count, self.use_bias, self.mask = feature_group_count, use_bias, mask
        self.dtype, self.param_dtype, self.precision = dtype, param_dtype, precision
        self.conv_general_dilated, self.promote_dtype = conv_general_dilated, promote_dtype
        self.preferred_element_type = preferred_element_type

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Convolve the inputs with the kernel and add the bias.

        Args:
          inputs: Array of shape `(*batch, *space, in_features)` with any number of batch axes, including none.
          out_sharding: Sharding of the result, for meshes with explicit axes. The default, None, leaves it to JAX.

        Returns:
          Array of shape `(*batch, *space, out_features)`, of the dtype of the computation. Strides and padding
          determine the sizes of its spatial axes.

        Raises:
          ArgumentError: If the inputs have too few axes or not the number of features of the layer.
        """
        rank, groups = len(self.kernel_size), self.feature_group_count
        kernel = masked(dtypes.value_of(self.kernel), self.mask)
        inputs, batch = fold_batch("Conv", inputs, rank, kernel.shape[-2] * groups)
        kernel_dilation = per_dimension("kernel_dilation", self.kernel_dilation, rank)
        inputs, padding = pad_inputs(inputs, self.padding, kernel.shape[:rank], kernel_dilation)
        inputs, kernel, bias = self.promote_dtype(
            (inputs, kernel, dtypes.value_of(self.bias)), dtype=self.dtype
        )
        if out_sharding is None and self.conv_general_dilated is lax.conv_general_dilated:
            out_sharding = convolution_sharding(inputs, kernel, kernel.ndim - 1)
        y = self.conv_general_dilated(
            inputs,
            kernel,
            per_dimension("strides", self.strides, rank),
            padding,
            lhs_dilation=per_dimension("input_dilation", self.input_dilation, rank),
            rhs_dilation=kernel_dilation,
            dimension_numbers=_channels_last(rank),
            feature_group_count=groups,
            precision=self.precision,
            **without_none(out_sharding=out_sharding, preferred_element_type=self.preferred_element_type),
        )
        return unfold_batch(add_bias(y, bias), batch)


def masked(kernel: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Multiply the kernel by the mask, if there is one; raise ArgumentError if their shapes differ."""
    check_mask(mask, kernel.shape)
    return kernel if mask is None else kernel * mask


def _check_groups(in_features: int, out_features: int, groups: int) -> None:
    """Raise ArgumentError if the number of groups does not divide both numbers of features."""
    if not groups or in_features % groups or out_features % groups:
        raise errors.ArgumentError(
            f"A Conv from {in_features} to {out_features} features cannot be split into feature_group_count={groups} "
            "groups.",
            "Use numbers of features that are multiples of feature_group_count.",
        )


def _check_padding(padding: Padding, input_dilation: int | Sequence[int] | None, rank: int) -> None:
    """Raise ArgumentError if the padding is unknown, or named while the inputs are dilated."""
    canonical = canonicalize_padding(padding, rank)
    if isinstance(canonical, str) and any(
        dilation != 1 for dilation in per_dimension("input_dilation", input_dilation, rank)
    ):
        raise errors.ArgumentError(
            f"A Conv with input_dilation={input_dilation!r} cannot have padding={padding!r}: named paddings are only "
            "defined for inputs without dilation.",
            "Pass the padding as numbers, or use ConvTranspose.",
        )


def _channels_last(rank: int) -> lax.ConvDimensionNumbers:
    """Return the axes of inputs `(batch, *space, features)` and kernels `(*space, in_features, out_features)`."""
    outer = (0, rank + 1, *range(1, rank + 1))
    return lax.ConvDimensionNumbers(outer, (rank + 1, rank, *range(rank)), outer)


answer(Conv)
publish(Conv)
