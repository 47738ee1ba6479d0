"""Mean and variance over some axes of an array, and the normalization by them."""

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
    """Mean and variance, computed in float32 at least.

    Args:
      x: The array.
      axes: The axes that are averaged over.
      dtype: Lowest dtype of the results. The default, None, is the dtype of `x`; float32 if that is less precise.
      axis_name: Name of a mapped axis that is averaged over as well. The default, None, is none.
      axis_index_groups: Groups of positions along the mapped axis that are averaged separately, as in
        `jax.lax.pmean`. The default, None, is one group.
      centered: Whether the variance is taken around the mean. If not, it is the mean square and the mean is zero.
      use_fast_variance: Whether the variance is `E[x^2] - E[x]^2`, which reads the array once, and not the more
        exact `E[(x - E[x])^2]`.
      mask: Array that broadcasts to the shape of `x`; what is zero or False in it is left out. The default is None.

    Returns:
      Mean and variance, of the shape of `x` without the axes.
    """
    axes = normalize_axes(x.ndim, axes)
    x = jnp.asarray(x, jnp.promote_types(dtype or jnp.result_type(x), jnp.float32))
    where = None if mask is None else jnp.broadcast_to(jnp.asarray(mask, bool), x.shape)

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
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias`.

    Args:
      x: The array.
      mean: Mean, of the shape of `x` without the reduction axes.
      variance: Variance, of the same shape.
      scale: Scale with one entry for each feature, or None.
      bias: Bias with one entry for each feature, or None.
      reduction_axes: The axes that mean and variance were taken over.
      feature_axes: The axes that scale and bias vary along.
      dtype: Dtype of the result. None infers it from `x`, `scale` and `bias`.
      epsilon: What is added to the variance.

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
    """The square of the absolute value."""
    return lax.square(x) if not jnp.iscomplexobj(x) else lax.square(x.real) + lax.square(x.imag)
