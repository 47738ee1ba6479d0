"""Mean and variance over axes of an array, and normalization with them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from liftnn._src.nn.arguments import Axes, normalize_axes
from liftnn._src.nn.dtypes import canonicalize_dtype


def moments(
    x: jax.Array,
    axes: Axes,
    *,
    dtype: DTypeLike | None = None,
    axis_name: str | None = None,
    axis_index_groups: Any = None,
    centered: bool = True,
    use_fast_variance: bool = True,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Compute mean and variance, in float32 or a more precise dtype.

    Args:
      x: The array.
      axes: The axes to average over.
      dtype: The dtype of the results, promoted to float32 if it is less precise. The default, None, means the dtype of
        `x`.
      axis_name: Name of a mapped axis to average over as well. The default, None, means none.
      axis_index_groups: Groups of positions along the mapped axis that are averaged separately, as in
        `jax.lax.pmean`. The default, None, means one group.
      centered: Whether the variance is around the mean. If False, it is the mean square, and the mean is zero. The
        default is True.
      use_fast_variance: Whether the variance is computed as `E[x^2] - E[x]^2`, in one pass over the array, instead of
        the more accurate `E[(x - E[x])^2]`. The default is True.
      mask: Array that broadcasts to the shape of `x`; entries that are zero or False are excluded. The default, None,
        includes all.

    Returns:
      Mean and variance, of the shape of `x` without the axes.
    """
    axes = normalize_axes(x.ndim, axes)
    x = jnp.asarray(x, jnp.promote_types(dtype or jnp.result_type(x), jnp.float32))
    where = None if mask is None else jnp.asarray(mask, bool)

    def mean_of(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        means = tuple(a.mean(axes, where=where) for a in arrays)
        return (
            means if axis_name is None else lax.pmean(means, axis_name, axis_index_groups=axis_index_groups)
        )

    if not centered:
        (variance,) = mean_of(_squared(x))
        return jnp.zeros_like(variance), variance
    if use_fast_variance:
        mean, square = mean_of(x, _squared(x))
        return mean, jnp.maximum(0.0, square - _squared(mean))  # rounding can make the difference negative
    (mean,) = mean_of(x)
    (variance,) = mean_of(_squared(x - jnp.expand_dims(mean, axes)))
    return mean, variance


def normalize(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    *,
    reduction_axes: Axes,
    feature_axes: Axes,
    dtype: DTypeLike | None,
    epsilon: float,
) -> jax.Array:
    """Compute `(x - mean) / sqrt(variance + epsilon) * scale + bias`.

    Args:
      x: The array.
      mean: Mean, of the shape of `x` without the reduction axes.
      variance: Variance, of the same shape.
      scale: Scale with one entry for each feature, or None.
      bias: Bias with one entry for each feature, or None.
      reduction_axes: The axes over which mean and variance were computed.
      feature_axes: The axes along which scale and bias vary.
      dtype: Dtype of the result. None infers it from `x`, `scale` and `bias`.
      epsilon: A small constant added to the variance, for numerical stability.

    Returns:
      The normalized array, of the shape of `x`.
    """
    reduced, features = normalize_axes(x.ndim, reduction_axes), normalize_axes(x.ndim, feature_axes)
    stats_shape = [1 if axis in reduced else size for axis, size in enumerate(x.shape)]
    feature_shape = [size if axis in features else 1 for axis, size in enumerate(x.shape)]
    factor = lax.rsqrt(variance.reshape(stats_shape) + epsilon)
    if scale is not None:
        factor = factor * scale.reshape(feature_shape)
    y = (x - mean.reshape(stats_shape)) * factor
    if bias is not None:
        y = y + bias.reshape(feature_shape)
    return jnp.asarray(y, canonicalize_dtype(x, scale, bias, dtype=dtype))


def _squared(x: jax.Array) -> jax.Array:
    """Compute the squared absolute value."""
    return lax.square(x) if not jnp.iscomplexobj(x) else lax.square(x.real) + lax.square(x.imag)
