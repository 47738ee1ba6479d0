"""Linear (dense) layer over the last axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from liftnn._src.foreign_names.attributes import answer
from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes, initializers
from liftnn._src.nn.arguments import add_bias, check_features, new_param, shape_of_input, without_none
from liftnn._src.nn.explicit_axes import product_sharding
from liftnn._src.nn.sizes import check_sizes
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs

default_kernel_init = initializers.lecun_normal()
default_bias_init = initializers.zeros_init()
_CODE = getattr(lax.dot_general, "__code__", None)


class Linear(Module):
    """Apply a linear transformation to the last axis: `y = x @ kernel + bias`.

    Args:
      in_features: Number of input features, the size of the input's last axis.
      out_features: Number of output features.
      use_bias: Whether a bias of shape `(out_features,)` is added; True by default.
      dtype: Dtype of the computation. The default, None, infers it from input and weights.
      param_dtype: Dtype of the weights; float32 by default.
      precision: Precision of the product, as in `jax.lax.dot_general`. The default, None, means the backend's default.
      kernel_init: Initializer of the kernel of shape `(in_features, out_features)`; LeCun normal by default.
      bias_init: Initializer of the bias; zeros by default.
      dot_general: The function that computes the product, `jax.lax.dot_general` by default.
      promote_dtype: A function that casts `(inputs, kernel, bias)` to a common dtype; by default
        `dtypes.promote_dtype`.
      preferred_element_type: Dtype in which the product is accumulated and returned. The default, None, means the
        dtype of the operands.
      rngs: The random keys: each weight draws one from the stream `params`.
      kernel_metadata: Metadata of the kernel's Param; none by default.
      bias_metadata: Metadata of the bias's Param; none by default.

    Raises:
      ArgumentError: If `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> layer = liftnn.Linear(3, 4, rngs=liftnn.Rngs(0))
      >>> layer(jnp.ones((2, 3))).shape
      (2, 4)
    """

    # Class defaults: an instance has these attributes only if their values differ, which keeps the printed form short.
    promote_dtype: dtypes.PromoteDtype = staticmethod(dtypes.promote_dtype)
    preferred_element_type: DTypeLike | None = None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: initializers.Initializer = default_kernel_init,
        bias_init: initializers.Initializer = default_bias_init,
        dot_general: Callable[..., jax.Array] = lax.dot_general,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        preferred_element_type: DTypeLike | None = None,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        check_sizes(self, in_features=in_features, out_features=out_features)
        kernel, bias = (in_features, out_features), (out_features,)
        self.kernel = new_param(rngs, kernel_init, kernel, param_dtype, kernel_metadata)
        self.bias = new_param(rngs, bias_init, bias, param_dtype, bias_metadata) if use_bias else None
        self.in_features, self.out_features, self.use_bias = in_features, out_features, use_bias
        self.dtype, self.param_dtype, self.precision = dtype, param_dtype, precision
        self.kernel_init, self.bias_init = kernel_init, bias_init
        self.dot_general = dot_general
        if promote_dtype is not dtypes.promote_dtype:
            self.promote_dtype = promote_dtype
        if preferred_element_type is not None:
            self.preferred_element_type = preferred_element_type

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Multiply the last axis of the inputs by the kernel and add the bias.

        Args:
          inputs: Array of shape `(..., in_features)`.
          out_sharding: Sharding of the result, for meshes with explicit axes. The default, None, leaves it to JAX.

        Returns:
          Array of shape `(..., out_features)`, of the dtype of the computation.

        Raises:
          ArgumentError: If the last axis of the inputs does not have the size `in_features`.
        """
        check_features("Linear", shape_of_input("Linear", inputs), -1, dtypes.value_of(self.kernel).shape[0])
        inputs, kernel, bias = self.promote_dtype(
            (inputs, dtypes.value_of(self.kernel), dtypes.value_of(self.bias)), dtype=self.dtype
        )
        contracted = (((inputs.ndim - 1,), (0,)), ((), ()))
        if out_sharding is None and self.dot_general is lax.dot_general:
            out_sharding = product_sharding(inputs, kernel, contracted)
        options = without_none(out_sharding=out_sharding, preferred_element_type=self.preferred_element_type)
        if (
            self.dot_general is lax.dot_general
            and not options
            and self.precision is None
            and not _is_replaced()
        ):
            # The same product; JAX caches its differentiation instead of repeating it in each layer.
            return add_bias(jnp.matmul(inputs, kernel), bias)
        y = self.dot_general(inputs, kernel, contracted, precision=self.precision, **options)
        return add_bias(y, bias)


def _is_replaced() -> bool:
    """Return whether `jax.lax.dot_general` runs other code than JAX's, as libraries for quantization make it do."""
    return getattr(lax.dot_general, "__code__", None) is not _CODE


answer(Linear)
publish(Linear)
