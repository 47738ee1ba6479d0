"""Linear layer over any axes: several input axes, output axes, and batch axes with separate weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes, initializers
from liftnn._src.nn.arguments import as_tuple, new_param, normalize_axes, shape_of_input, without_none
from liftnn._src.nn.explicit_axes import product_sharding, sharded_like_batch
from liftnn._src.nn.linear import default_bias_init, default_kernel_init
from liftnn._src.nn.shaped_initializers import initializer_of_shape, initializer_of_vector
from liftnn._src.nn.sizes import check_size_tuples
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs


class LinearGeneral(Module):
    """Apply a linear transformation to any axes of the input.

    Args:
      in_features: Sizes of the input axes to contract: an int or a sequence.
      out_features: Sizes of the output axes, which are the last axes of the result: an int or a sequence.
      axis: The input axes to contract, one for each entry of `in_features`; the last axis by default.
      batch_axis: The size of each batch axis, by its position 0, 1, ...; each entry along them has separate weights.
        The default is no batch axes.
      use_bias: Whether a bias of shape `(*batch, *out_features)` is added; True by default.
      dtype: Dtype of the computation. The default, None, infers it from input and weights.
      param_dtype: Dtype of the weights; float32 by default.
      kernel_init: Initializer of the kernel, called with the shape `(batch * in_features, out_features)`, the products
        of these sizes; LeCun normal by default.
      bias_init: Initializer of the bias; zeros by default.
      precision: Precision of the product, as in `jax.lax.dot_general`. The default, None, means the backend's default.
      promote_dtype: A function that casts `(inputs, kernel, bias)` to a common dtype; by default
        `dtypes.promote_dtype`.
      dot_general: The function that computes the product. The default, None, means `jax.lax.dot_general`.
      dot_general_cls: A function without arguments that creates a new product function for each call; it takes
        precedence over `dot_general`. The default is None.
      preferred_element_type: Dtype in which the product is accumulated and returned. The default, None, means the
        dtype of the operands.
      rngs: The random keys: each weight draws one from the stream `params`.
      kernel_metadata: Metadata of the kernel's Param; none by default.
      bias_metadata: Metadata of the bias's Param; none by default.

    Raises:
      ArgumentError: If the lengths of `in_features` and `axis` differ, if the batch axes are not 0, 1, ..., or if
        `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> layer = liftnn.LinearGeneral((3, 2), (4, 5), axis=(1, -1), rngs=liftnn.Rngs(0))
      >>> layer(jnp.ones((7, 3, 2))).shape
      (7, 4, 5)
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int],
        *,
        axis: int | Sequence[int] = -1,
        batch_axis: Mapping[int, int] = MappingProxyType({}),
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        kernel_init: initializers.Initializer = default_kernel_init,
        bias_init: initializers.Initializer = default_bias_init,
        precision: lax.PrecisionLike = None,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        dot_general: Callable[..., jax.Array] | None = None,
        dot_general_cls: Callable[[], Callable[..., jax.Array]] | None = None,
        preferred_element_type: DTypeLike | None = None,
        rngs: Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        check_size_tuples(self, in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = as_tuple(in_features), as_tuple(out_features)
        self.axis, self.batch_axis = as_tuple(axis), dict(sorted(batch_axis.items()))
        _check_axes(self.in_features, self.axis, self.batch_axis)
        self.use_bias, self.dtype, self.param_dtype = use_bias, dtype, param_dtype
        self.precision, self.promote_dtype = precision, promote_dtype
        self.dot_general, self.dot_general_cls = dot_general, dot_general_cls
        self.preferred_element_type = preferred_element_type
        batch = tuple(self.batch_axis.values())
        rows = batch + self.in_features
        init = initializer_of_shape(kernel_init, rows, self.out_features)
        self.kernel = new_param(rngs, init, rows + self.out_features, param_dtype, kernel_metadata)
        self.bias = None
        if use_bias:
            init = initializer_of_vector(bias_init, batch + self.out_features)
            self.bias = new_param(rngs, init, batch + self.out_features, param_dtype, bias_metadata)

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Contract the axes `axis` of the inputs with the kernel and add the bias.

        Args:
          inputs: Array with sizes `in_features` along `axis`; its first axes are the batch axes.
          out_sharding: Sharding of the result, for meshes with explicit axes. The default, None, leaves it to JAX.

        Returns:
          Array of shape `(*batch, *other input axes, *out_features)`, of the dtype of the computation.

        Raises:
          ArgumentError: If the inputs do not have the sizes `in_features` along `axis`.
        """
        axis = _check_input(shape_of_input("LinearGeneral", inputs), self.axis, self.in_features)
        inputs, kernel, bias = self.promote_dtype(
            (inputs, dtypes.value_of(self.kernel), dtypes.value_of(self.bias)), dtype=self.dtype
        )
        batch = tuple(self.batch_axis)
        summed = tuple(range(len(batch), len(batch) + len(axis)))
        product = self.dot_general_cls() if self.dot_general_cls else self.dot_general or lax.dot_general
        contracted = ((axis, summed), (batch, batch))
        if product is lax.dot_general:
            kernel = sharded_like_batch(kernel, inputs, [(i, i) for i in batch])
            out_sharding = out_sharding or product_sharding(inputs, kernel, contracted)
        options = without_none(out_sharding=out_sharding, preferred_element_type=self.preferred_element_type)
        y = product(inputs, kernel, contracted, precision=self.precision, **options)
        if bias is None:
            return y
        ones = (1,) * (y.ndim - len(batch) - len(self.out_features))
        return y + bias.reshape(y.shape[: len(batch)] + ones + self.out_features)


def _check_axes(in_features: tuple[int, ...], axis: tuple[int, ...], batch_axis: Mapping[int, int]) -> None:
    """Raise ArgumentError if the axes of a LinearGeneral are inconsistent."""
    if len(in_features) != len(axis):
        raise errors.ArgumentError(
            f"LinearGeneral got {len(in_features)} in_features, {in_features}, for {len(axis)} axes, {axis}.",
            "Pass one size for each axis.",
        )
    if list(batch_axis) != list(range(len(batch_axis))):
        raise errors.ArgumentError(
            f"The batch axes of a LinearGeneral must be its input's first ones, but they are {tuple(batch_axis)}.",
            "Number them 0, 1 ... without gaps.",
        )


def _check_input(
    shape: tuple[int, ...], axis: tuple[int, ...], in_features: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the axes as non-negative positions; raise ArgumentError if the input does not have the layer's sizes."""
    normalize_axes(len(shape), axis)
    found = tuple(shape[i] for i in axis)
    if found != in_features:
        raise errors.ArgumentError(
            f"This LinearGeneral expects {in_features} input features along axes {axis}, but its input of shape "
            f"{tuple(shape)} has {found}.",
            "Create the layer with the input's number of features, or change the input.",
        )
    return tuple(i % len(shape) for i in axis)


publish(LinearGeneral)
