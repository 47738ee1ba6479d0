"""Instance normalization: each example and feature is normalized over space."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from liftnn import errors
from liftnn._src.foreign_names.attributes import answer
from liftnn._src.modules.module import Module
from liftnn._src.nn import dtypes, initializers
from liftnn._src.nn.arguments import Axes, check_normalized, new_param, normalize_axes, shape_of_input
from liftnn._src.nn.moments import moments, normalize
from liftnn._src.nn.sizes import check_sizes
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs


class InstanceNorm(Module):
    """Normalize each feature of each example by its mean and variance over the other axes, such as height and width.

    Args:
      num_features: Number of features, the size of the input along `feature_axes`.
      epsilon: A small constant added to the variance, for numerical stability; 1e-6 by default.
      dtype: Dtype of the result. The default, None, infers it from input and weights.
      param_dtype: Dtype of scale and bias; float32 by default.
      use_bias: Whether a bias of shape `(num_features,)` is added; True by default.
      use_scale: Whether the result is multiplied by a scale of shape `(num_features,)`; True by default.
      bias_init: Initializer of the bias; zeros by default.
      scale_init: Initializer of the scale; ones by default.
      feature_axes: The axes along which scale and bias vary; the last one by default. Mean and variance are computed
        over all other axes but the first, which is the batch.
      axis_name: Name of a mapped axis over which the statistics are averaged too. The default, None, means none.
      axis_index_groups: Groups of positions along the mapped axis that are averaged separately, as in
        `jax.lax.pmean`. The default, None, means one group.
      use_fast_variance: Whether the variance is computed as `E[x^2] - E[x]^2`, in one pass over the input but with less
        accuracy; True by default.
      promote_dtype: A function that casts `(inputs, scale, bias)` to a common dtype; by default
        `dtypes.promote_dtype`.
      rngs: The random keys: scale and bias draw one each from the stream `params`.
      bias_metadata: Metadata of the bias's Param; none by default.
      scale_metadata: Metadata of the scale's Param; none by default.

    Raises:
      ArgumentError: If `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> layer = liftnn.InstanceNorm(2, rngs=liftnn.Rngs(0))
      >>> layer(jnp.array([[[1.0, 10.0], [3.0, 30.0]]])).round(3)
      Array([[[-1., -1.],
              [ 1.,  1.]]], dtype=float32)

    References:
      Ulyanov, Vedaldi and Lempitsky, Instance Normalization, https://arxiv.org/abs/1607.08022
    """

    def __init__(
        self,
        num_features: int,
        *,
        epsilon: float = 1e-6,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: initializers.Initializer = initializers.zeros,
        scale_init: initializers.Initializer = initializers.ones,
        feature_axes: Axes = -1,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        rngs: Rngs,
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        scale_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        check_sizes(self, num_features=num_features)
        shape = (num_features,)
        self.scale = new_param(rngs, scale_init, shape, param_dtype, scale_metadata) if use_scale else None
        self.bias = new_param(rngs, bias_init, shape, param_dtype, bias_metadata) if use_bias else None
        self.num_features, self.epsilon = num_features, epsilon
        self.dtype, self.param_dtype = dtype, param_dtype
        self.use_bias, self.use_scale, self.feature_axes = use_bias, use_scale, feature_axes
        self.axis_name, self.axis_index_groups = axis_name, axis_index_groups
        self.use_fast_variance, self.promote_dtype = use_fast_variance, promote_dtype

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Normalize the input.

        Args:
          x: Array of shape `(batch, ...)`, with `num_features` entries along `feature_axes`.
          mask: Array that broadcasts to the shape of `x`; entries that are zero or False are excluded from the
            statistics. The default, None, includes all.

        Returns:
          Array of the shape of `x`.

        Raises:
          ArgumentError: If the number of input features is not that of the layer, or if the first axis is a
            feature axis.
        """
        shape = shape_of_input("InstanceNorm", x)
        features = normalize_axes(len(shape), self.feature_axes)
        if 0 in features:
            raise errors.ArgumentError(
                f"InstanceNorm takes the first axis as the batch, but feature_axes={self.feature_axes!r} includes it "
                f"for an input of shape {shape}.",
                "Pass an input of shape (batch, ..., num_features), or other feature axes.",
            )
        check_normalized("InstanceNorm", x, features, self.num_features, mask)
        space = tuple(axis for axis in range(1, len(shape)) if axis not in features)
        x, scale, bias = self.promote_dtype(
            (x, dtypes.value_of(self.scale), dtypes.value_of(self.bias)), dtype=self.dtype
        )
        mean, var = moments(
            x, space, dtype=self.dtype, axis_name=self.axis_name, axis_index_groups=self.axis_index_groups,
            use_fast_variance=self.use_fast_variance, mask=mask,
        )  # fmt: skip
        return normalize(
            x, mean, var, scale, bias, reduction_axes=space, feature_axes=features, dtype=self.dtype,
            epsilon=self.epsilon,
        )  # fmt: skip


answer(InstanceNorm)
publish(InstanceNorm)
