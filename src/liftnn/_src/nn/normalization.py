"""Normalization of single examples: layer, root mean square and group normalization."""

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
from liftnn._src.nn.arguments import Axes, check_normalized, new_param, normalize_axes
from liftnn._src.nn.moments import moments, normalize
from liftnn._src.nn.sizes import check_sizes, is_size
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs


class LayerNorm(Module):
    """Normalize each example by the mean and variance of its features.

    Args:
      num_features: Number of features, the size of the input along `feature_axes`.
      epsilon: A small constant added to the variance, for numerical stability; 1e-6 by default.
      dtype: Dtype of the result. The default, None, infers it from input and weights.
      param_dtype: Dtype of scale and bias; float32 by default.
      use_bias: Whether a bias of shape `(num_features,)` is added; True by default.
      use_scale: Whether the result is multiplied by a scale of shape `(num_features,)`; True by default.
      bias_init: Initializer of the bias; zeros by default.
      scale_init: Initializer of the scale; ones by default.
      reduction_axes: The axes over which mean and variance are computed; the last one by default.
      feature_axes: The axes along which scale and bias vary; the last one by default.
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
      >>> layer = liftnn.LayerNorm(2, rngs=liftnn.Rngs(0))
      >>> layer(jnp.array([[1.0, 3.0]])).round(3)
      Array([[-1.,  1.]], dtype=float32)

    References:
      Ba, Kiros and Hinton, Layer Normalization, https://arxiv.org/abs/1607.06450
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
        reduction_axes: Axes = -1,
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
        self.use_bias, self.use_scale = use_bias, use_scale
        self.reduction_axes, self.feature_axes = reduction_axes, feature_axes
        self.axis_name, self.axis_index_groups = axis_name, axis_index_groups
        self.use_fast_variance, self.promote_dtype = use_fast_variance, promote_dtype

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Normalize the input.

        Args:
          x: Array with `num_features` entries along `feature_axes`.
          mask: Array that broadcasts to the shape of `x`; entries that are zero or False are excluded from the
            statistics. The default, None, includes all.

        Returns:
          Array of the shape of `x`.

        Raises:
          ArgumentError: If the number of input features is not that of the layer.
        """
        check_normalized("LayerNorm", x, self.feature_axes, self.num_features, mask)
        x, scale, bias = self.promote_dtype(
            (x, dtypes.value_of(self.scale), dtypes.value_of(self.bias)), dtype=self.dtype
        )
        mean, var = moments(
            x, self.reduction_axes, dtype=self.dtype, axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups, use_fast_variance=self.use_fast_variance, mask=mask,
        )  # fmt: skip
        return normalize(
            x, mean, var, scale, bias, reduction_axes=self.reduction_axes, feature_axes=self.feature_axes,
            dtype=self.dtype, epsilon=self.epsilon,
        )  # fmt: skip


class RMSNorm(Module):
    """Divide each example by the root mean square of its features.

    Args:
      num_features: Number of features, the size of the input along `feature_axes`.
      epsilon: A small constant added to the mean square, for numerical stability; 1e-6 by default.
      dtype: Dtype of the result. The default, None, infers it from input and weights.
      param_dtype: Dtype of the scale; float32 by default.
      use_scale: Whether the result is multiplied by a scale of shape `(num_features,)`; True by default.
      scale_init: Initializer of the scale; ones by default.
      reduction_axes: The axes over which the mean square is computed; the last one by default.
      feature_axes: The axes along which the scale varies; the last one by default.
      axis_name: Name of a mapped axis over which the mean square is averaged too. The default, None, means none.
      axis_index_groups: Groups of positions along the mapped axis that are averaged separately, as in
        `jax.lax.pmean`. The default, None, means one group.
      use_fast_variance: Has no effect; accepted for consistency with the other normalizations. True by default.
      promote_dtype: A function that casts `(inputs, scale)` to a common dtype; by default
        `dtypes.promote_dtype`.
      rngs: The random keys: the scale draws one from the stream `params`.
      scale_metadata: Metadata of the scale's Param; none by default.

    Raises:
      ArgumentError: If `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> layer = liftnn.RMSNorm(2, rngs=liftnn.Rngs(0))
      >>> y = layer(jnp.array([[3.0, 4.0]]))
      >>> jnp.mean(y**2).round(3)
      Array(1., dtype=float32)

    References:
      Zhang and Sennrich, Root Mean Square Layer Normalization, https://arxiv.org/abs/1910.07467
    """

    def __init__(
        self,
        num_features: int,
        *,
        epsilon: float = 1e-6,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        use_scale: bool = True,
        scale_init: initializers.Initializer = initializers.ones,
        reduction_axes: Axes = -1,
        feature_axes: Axes = -1,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        rngs: Rngs,
        scale_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        check_sizes(self, num_features=num_features)
        shape = (num_features,)
        self.scale = new_param(rngs, scale_init, shape, param_dtype, scale_metadata) if use_scale else None
        self.num_features, self.epsilon = num_features, epsilon
        self.dtype, self.param_dtype, self.use_scale = dtype, param_dtype, use_scale
        self.reduction_axes, self.feature_axes = reduction_axes, feature_axes
        self.axis_name, self.axis_index_groups = axis_name, axis_index_groups
        self.use_fast_variance, self.promote_dtype = use_fast_variance, promote_dtype

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Normalize the input.

        Args:
          x: Array with `num_features` entries along `feature_axes`.
          mask: Array that broadcasts to the shape of `x`; entries that are zero or False are excluded from the
            mean square. The default, None, includes all.

        Returns:
          Array of the shape of `x`.

        Raises:
          ArgumentError: If the number of input features is not that of the layer.
        """
        check_normalized("RMSNorm", x, self.feature_axes, self.num_features, mask)
        x, scale = self.promote_dtype((x, dtypes.value_of(self.scale)), dtype=self.dtype)
        mean, var = moments(
            x, self.reduction_axes, dtype=self.dtype, axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups, centered=False, mask=mask,
        )  # fmt: skip
        return normalize(
            x, mean, var, scale, None, reduction_axes=self.reduction_axes, feature_axes=self.feature_axes,
            dtype=self.dtype, epsilon=self.epsilon,
        )  # fmt: skip


class GroupNorm(Module):
    """Normalize each example by the mean and variance of groups of its features.

    Args:
      num_features: Number of features, the size of the input's last axis.
      num_groups: Number of groups; 32 by default. None if `group_size` is given.
      group_size: Number of features in a group. The default, None, means `num_features // num_groups`.
      epsilon: A small constant added to the variance, for numerical stability; 1e-6 by default.
      dtype: Dtype of the result. The default, None, infers it from input and weights.
      param_dtype: Dtype of scale and bias; float32 by default.
      use_bias: Whether a bias of shape `(num_features,)` is added; True by default.
      use_scale: Whether the result is multiplied by a scale of shape `(num_features,)`; True by default.
      bias_init: Initializer of the bias; zeros by default.
      scale_init: Initializer of the scale; ones by default.
      reduction_axes: The axes over which mean and variance are computed, including the last axis. The default, None,
        means all but the first.
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
      ArgumentError: Unless exactly one of `num_groups` and `group_size` is not None, if it does not divide the number
        of features, or if `rngs` is not an `Rngs`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> layer = liftnn.GroupNorm(4, num_groups=2, rngs=liftnn.Rngs(0))
      >>> layer(jnp.array([[1.0, 3.0, 10.0, 30.0]])).round(3)
      Array([[-1.,  1., -1.,  1.]], dtype=float32)

    References:
      Wu and He, Group Normalization, https://arxiv.org/abs/1803.08494
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int | None = 32,
        group_size: int | None = None,
        *,
        epsilon: float = 1e-6,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: initializers.Initializer = initializers.zeros,
        scale_init: initializers.Initializer = initializers.ones,
        reduction_axes: Axes | None = None,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        promote_dtype: dtypes.PromoteDtype = dtypes.promote_dtype,
        rngs: Rngs,
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        scale_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        check_sizes(self, num_features=num_features)
        self.num_groups, self.group_size = _groups(num_features, num_groups, group_size)
        shape = (num_features,)
        self.scale = new_param(rngs, scale_init, shape, param_dtype, scale_metadata) if use_scale else None
        self.bias = new_param(rngs, bias_init, shape, param_dtype, bias_metadata) if use_bias else None
        self.num_features, self.epsilon = num_features, epsilon
        self.dtype, self.param_dtype = dtype, param_dtype
        self.use_bias, self.use_scale = use_bias, use_scale
        self.reduction_axes, self.axis_name = reduction_axes, axis_name
        self.axis_index_groups, self.use_fast_variance = axis_index_groups, use_fast_variance
        self.promote_dtype = promote_dtype

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Normalize the input.

        Args:
          x: Array of shape `(..., num_features)`.
          mask: Array that broadcasts to the shape of `x`; entries that are zero or False are excluded from the
            statistics. The default, None, includes all.

        Returns:
          Array of the shape of `x`.

        Raises:
          ArgumentError: If the number of input features is not that of the layer, if the reduction axes do not include
            the last axis, or if the input has one axis and the layer no reduction axes.
        """
        shape = check_normalized("GroupNorm", x, -1, self.num_features, mask)
        space = _space(len(shape), self.reduction_axes)
        grouped = (*shape[:-1], self.num_groups, self.group_size)
        mask = None if mask is None else _grouped_mask(jnp.asarray(mask), shape, grouped)
        x, scale, bias = self.promote_dtype(
            (x, dtypes.value_of(self.scale), dtypes.value_of(self.bias)), dtype=self.dtype
        )
        statistics = moments(
            x.reshape(grouped), (*space, x.ndim), dtype=self.dtype, axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups, use_fast_variance=self.use_fast_variance, mask=mask,
        )  # fmt: skip
        mean, var = (_of_features(statistic, self.group_size) for statistic in statistics)
        return normalize(
            x, mean, var, scale, bias,
            reduction_axes=space, feature_axes=-1, dtype=self.dtype, epsilon=self.epsilon,
        )  # fmt: skip


def _groups(num_features: int, num_groups: int | None, group_size: int | None) -> tuple[int, int]:
    """Return number and size of the groups; raise ArgumentError unless exactly one is given and fits the features."""
    if (num_groups is None) == (group_size is None):
        raise errors.ArgumentError(
            f"GroupNorm needs either num_groups or group_size, but they are {num_groups} and {group_size}.",
            "Pass one of them; with group_size, also pass num_groups=None.",
        )
    name, divisor = ("num_groups", num_groups) if group_size is None else ("group_size", group_size)
    if not is_size(divisor) or not divisor or num_features % divisor:
        raise errors.ArgumentError(
            f"GroupNorm cannot split {num_features} features evenly with {name}={divisor!r}.",
            f"Pass a {name} that divides the number of features.",
        )
    other = num_features // divisor
    return (divisor, other) if group_size is None else (other, divisor)


def _grouped_mask(mask: jax.Array, shape: tuple[int, ...], grouped: tuple[int, ...]) -> jax.Array:
    """Split the last axis of a mask into groups, without broadcasting its other axes."""
    mask = jnp.broadcast_to(mask, (*mask.shape[:-1], shape[-1]))
    return mask.reshape((*mask.shape[:-1], *grouped[-2:]))


def _of_features(statistic: jax.Array, group_size: int) -> jax.Array:
    """Repeat a statistic of each group for its features; unlike `jax.numpy.repeat` also if the groups are sharded."""
    repeated = jnp.broadcast_to(statistic[..., None], (*statistic.shape, group_size))
    return repeated.reshape((*statistic.shape[:-1], statistic.shape[-1] * group_size))


def _space(ndim: int, axes: Axes | None) -> tuple[int, ...]:
    """Return the reduction axes without the feature axis; raise ArgumentError if it is not among them."""
    if axes is None and ndim < 2:
        raise errors.ArgumentError(
            "GroupNorm takes the first axis as the batch, but its input has only one axis, that of the features.",
            "Add a batch axis, for example x[None], or pass reduction_axes=-1.",
        )
    reduced = tuple(range(1, ndim)) if axes is None else normalize_axes(ndim, axes)
    if ndim - 1 not in reduced:
        raise errors.ArgumentError(
            f"GroupNorm computes statistics over its features, but reduction_axes={axes!r} does not include the last "
            "axis.",
            "Add -1 to the reduction axes.",
        )
    return reduced[:-1]


answer(GroupNorm, LayerNorm, RMSNorm)
publish(GroupNorm, LayerNorm, RMSNorm)
