"""Batch normalization, with batch statistics in training and running averages in evaluation."""

from __future__ import annotations

from collections.abc import Mapping
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
from liftnn._src.nn.arguments import check_normalized, new_param, normalize_axes
from liftnn._src.nn.explicit_axes import in_place_of
from liftnn._src.nn.moments import moments, normalize
from liftnn._src.nn.sizes import check_sizes
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs
from liftnn._src.variables.variable_types import BatchStat


class BatchNorm(Module):
    """Normalize each feature by its mean and variance over the batch.

    In training, each call updates the running averages `mean` and `var`, of shape `(num_features,)`, with the
    statistics of the batch: `average = momentum * average + (1 - momentum) * statistic`. After `eval()` on the layer,
    or on a module that contains it, the layer uses the running averages instead; `train()` reverts this.

    Args:
      num_features: Number of features, the size of the input along `axis`.
      use_running_average: Whether the running averages are used instead of the batch statistics. False by default; with
        None, each call must pass it.
      axis: The feature axis of the input; the last one by default.
      momentum: The decay rate of the running averages; 0.99 by default.
      epsilon: A small constant added to the variance, for numerical stability; 1e-5 by default.
      dtype: Dtype of the result. The default, None, infers it from input and weights.
      param_dtype: Dtype of scale and bias; float32 by default.
      use_bias: Whether a bias of shape `(num_features,)` is added; True by default.
      use_scale: Whether the result is multiplied by a scale of shape `(num_features,)`; True by default.
      bias_init: Initializer of the bias; zeros by default.
      scale_init: Initializer of the scale; ones by default.
      axis_name: Name of a mapped axis over which the statistics are averaged too. The default, None, means none.
      axis_index_groups: Groups of positions along the mapped axis that are averaged separately, as in
        `jax.lax.pmean`. The default, None, means one group.
      use_fast_variance: Whether the variance is computed as `E[x^2] - E[x]^2`, in one pass over the input but with less
        accuracy; True by default.
      promote_dtype: A function that casts `(inputs, mean, var, scale, bias)` to a common dtype; by default
        `dtypes.promote_dtype`.
      rngs: The random keys: scale and bias draw one each from the stream `params`.
      bias_metadata: Metadata of the bias's Param; none by default.
      scale_metadata: Metadata of the scale's Param; none by default.

    Raises:
      ArgumentError: If `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> layer = liftnn.BatchNorm(2, momentum=0.5, rngs=liftnn.Rngs(0))
      >>> y = layer(jnp.array([[0.0, 2.0], [2.0, 6.0]]))
      >>> layer.mean.value
      Array([0.5, 2. ], dtype=float32)

    References:
      Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167
    """

    def __init__(
        self,
        num_features: int,
        *,
        use_running_average: bool | None = False,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: initializers.Initializer = initializers.zeros,
        scale_init: initializers.Initializer = initializers.ones,
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
        self.mean = BatchStat(jnp.zeros(shape, jnp.float32))
        self.var = BatchStat(jnp.ones(shape, jnp.float32))
        self.scale = new_param(rngs, scale_init, shape, param_dtype, scale_metadata) if use_scale else None
        self.bias = new_param(rngs, bias_init, shape, param_dtype, bias_metadata) if use_bias else None
        self.num_features, self.use_running_average, self.axis = num_features, use_running_average, axis
        self.momentum, self.epsilon = momentum, epsilon
        self.dtype, self.param_dtype = dtype, param_dtype
        self.use_bias, self.use_scale = use_bias, use_scale
        self.axis_name, self.axis_index_groups = axis_name, axis_index_groups
        self.use_fast_variance, self.promote_dtype = use_fast_variance, promote_dtype

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Set the mode of a copy, for `liftnn.view`.

        Args:
          use_running_average: Whether to normalize with the running statistics instead of those of the batch. None, the
            default, changes nothing.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(
        self, x: jax.Array, use_running_average: bool | None = None, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """Normalize the input; in training, also update the running averages.

        Args:
          x: Array with `num_features` entries along `axis`; the other axes are the batch.
          use_running_average: Whether the running averages are used instead of the batch statistics. The default, None,
            uses the layer's setting.
          mask: Array that broadcasts to the shape of `x`; entries that are zero or False are excluded from the
            statistics. The default, None, includes all.

        Returns:
          Array of the shape of `x`.

        Raises:
          ArgumentError: If `use_running_average` is None in both the layer and the call, or if the number of input
            features is not that of the layer.
        """
        running = self.use_running_average if use_running_average is None else use_running_average
        if running is None:
            raise _no_use_running_average()
        shape = check_normalized("BatchNorm", x, self.axis, self.num_features, mask)
        batch_axes = tuple(set(range(len(shape))).difference(normalize_axes(len(shape), self.axis)))
        weights = (dtypes.value_of(self.scale), dtypes.value_of(self.bias))
        x, mean, var, scale, bias = self.promote_dtype(
            (x, self.mean.value, self.var.value, *weights), dtype=self.dtype
        )
        if not running:
            mean, var = self._update(x, batch_axes, mask)
        return normalize(
            x, mean, var, scale, bias,
            reduction_axes=batch_axes, feature_axes=self.axis, dtype=self.dtype, epsilon=self.epsilon,
        )  # fmt: skip

    def _update(
        self, x: jax.Array, axes: tuple[int, ...], mask: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Update the running averages; return the statistics of the batch."""
        statistics = moments(
            x, axes, dtype=self.dtype, axis_name=self.axis_name, axis_index_groups=self.axis_index_groups,
            use_fast_variance=self.use_fast_variance, mask=mask,
        )  # fmt: skip
        for average, statistic in zip((self.mean, self.var), statistics, strict=True):
            # The averages are not part of the loss, so no gradient flows through them to earlier batches.
            placed = in_place_of(average.value, statistic)
            new = lax.stop_gradient(self.momentum * average.value + (1 - self.momentum) * placed)
            average.value = new if jnp.iscomplexobj(new) else new.astype(average.value.dtype)
        return statistics


def _no_use_running_average() -> errors.ArgumentError:
    """Return the error for a layer without a setting for `use_running_average`."""
    return errors.ArgumentError(
        "BatchNorm needs use_running_average, but it is None in both the layer and the call.",
        "Call train() or eval() on the model, or pass use_running_average to the constructor or the call.",
    )


answer(BatchNorm)
publish(BatchNorm)
