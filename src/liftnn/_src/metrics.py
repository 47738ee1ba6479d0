"""Metrics: running statistics over batches, stored in Variables so that transforms carry them."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from liftnn import errors
from liftnn._src.foreign_names.attributes import answer
from liftnn._src.modules.module import Module
from liftnn._src.publish import publish
from liftnn._src.variables.variable_types import MetricState


class Metric(Module):
    """Base class of metrics, which are updated batch by batch, computed and reset.

    Subclasses define `update`, `compute` and `reset`, and store their running values in `MetricState` Variables.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> class Largest(liftnn.Metric):
      ...     def __init__(self):
      ...         self.largest = liftnn.MetricState(jnp.array(-jnp.inf))
      ...     def update(self, *, values, **_):
      ...         self.largest.value = jnp.maximum(self.largest.value, values.max())
      ...     def compute(self):
      ...         return self.largest.value
      ...     def reset(self):
      ...         self.largest.value = jnp.array(-jnp.inf)
      >>> metric = Largest()
      >>> metric.update(values=jnp.array([1.0, 3.0]))
      >>> metric.compute()
      Array(3., dtype=float32)
    """

    # `Module.update` takes States, but `Metric.update` takes a batch; use `liftnn.update(metric, state)` for States.
    def update(self, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update the metric with a batch.

        Args:
          **kwargs: The arrays of the batch, by names that the subclass defines.

        Raises:
          NotImplementedError: If the subclass does not define this method.
        """
        raise NotImplementedError(f"{type(self).__qualname__} does not define update().")

    def compute(self) -> Any:
        """Compute the value over all batches since the last reset.

        Returns:
          The value.

        Raises:
          NotImplementedError: If the subclass does not define this method.
        """
        raise NotImplementedError(f"{type(self).__qualname__} does not define compute().")

    def reset(self) -> None:
        """Reset the metric to its initial state.

        Raises:
          NotImplementedError: If the subclass does not define this method.
        """
        raise NotImplementedError(f"{type(self).__qualname__} does not define reset().")


class Average(Metric):
    """The average of all values since the last reset.

    Args:
      argname: The name of the keyword argument of `update` with the values. The default is `"values"`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> loss = liftnn.Average()
      >>> loss.update(values=jnp.array([1.0, 2.0, 3.0]))
      >>> loss.update(values=6.0)
      >>> loss.compute()
      Array(3., dtype=float32)
    """

    def __init__(self, argname: str = "values"):
        self.argname = argname
        self.total = MetricState(jnp.zeros((), jnp.float32))
        self.count = MetricState(jnp.zeros((), jnp.int32))

    def reset(self) -> None:
        """Reset the metric to its initial state, without values; axes that `vmap` has added stay."""
        for state in (self.total, self.count):
            state.value = jnp.zeros_like(state.value)

    def update(self, mask: jax.Array | None = None, **kwargs: Any) -> None:
        """Add values to the average.

        Args:
          mask: An array of zeros and ones, or booleans, that broadcasts to the shape of the values; values with mask 0
            are excluded. The default, None, includes all values.
          **kwargs: The values, an array of any shape or a number, under the name `argname`. Other names are ignored.

        Raises:
          ArgumentError: If there is no argument named `argname`, or if the mask does not broadcast to the values.
        """
        values, mask = _values(kwargs, self.argname, mask)
        _add(self.total, _masked_sum(values, mask))
        _add(self.count, _count(values, mask))

    def compute(self) -> jax.Array:
        """Compute the average of all values since the last reset.

        Returns:
          An array of shape `()`; NaN if there are no values.
        """
        return self.total.value / self.count.value.astype(self.total.value.dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Statistics:
    """The statistics that `Welford.compute` returns: arrays of shape `()`.

    Args:
      mean: The mean.
      standard_error_of_mean: The standard deviation divided by the square root of the number of values.
      standard_deviation: The square root of the mean squared deviation from the mean.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> metric = liftnn.Welford()
      >>> metric.update(values=jnp.array([1.0, 3.0]))
      >>> statistics = metric.compute()
      >>> float(statistics.mean), float(statistics.standard_deviation)
      (2.0, 1.0)
    """

    mean: jax.Array
    standard_error_of_mean: jax.Array
    standard_deviation: jax.Array


class Welford(Metric):
    """The mean and standard deviation of all values, by Welford's numerically stable algorithm.

    Args:
      argname: The name of the keyword argument of `update` with the values. The default is `"values"`.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> metric = liftnn.Welford()
      >>> metric.update(values=jnp.array([1.0, 2.0]))
      >>> metric.update(values=jnp.array([6.0, 7.0]))
      >>> metric.compute().mean
      Array(4., dtype=float32)

    References:
      Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances,
      https://doi.org/10.1007/978-3-642-51461-6_3
    """

    def __init__(self, argname: str = "values"):
        self.argname = argname
        self.count = MetricState(jnp.zeros((), jnp.int32))
        self.mean = MetricState(jnp.zeros((), jnp.float32))
        self.m2 = MetricState(jnp.zeros((), jnp.float32))

    def reset(self) -> None:
        """Reset the metric to its initial state, without values; axes that `vmap` has added stay."""
        for state in (self.count, self.mean, self.m2):
            state.value = jnp.zeros_like(state.value)

    def update(self, mask: jax.Array | None = None, **kwargs: Any) -> None:
        """Add values to the statistics.

        Args:
          mask: An array of zeros and ones, or booleans, that broadcasts to the shape of the values; values with mask 0
            are excluded. The default, None, includes all values.
          **kwargs: The values, an array of any shape or a number, under the name `argname`. Other names are ignored.

        Raises:
          ArgumentError: If there is no argument named `argname`, or if the mask does not broadcast to the values.
        """
        values, mask = _values(kwargs, self.argname, mask)
        values = _as_floats(values)
        before, added = self.count.value, _count(values, mask)
        after = before + added
        # Dividing by at least 1 keeps a batch without values from turning the statistics into NaN.
        mean = _masked_sum(values, mask) / jnp.maximum(added, 1).astype(values.dtype)
        spread = _masked_sum((values - mean) ** 2, mask)
        delta = mean - self.mean.value
        share = (added / jnp.maximum(after, 1)).astype(delta.dtype)
        _add(self.mean, delta * share)
        _add(self.m2, spread + delta * delta * before.astype(delta.dtype) * share)
        _add(self.count, added)

    def compute(self) -> Statistics:
        """Compute the statistics of all values since the last reset.

        Returns:
          The statistics. Without values the mean is 0 and the others are NaN.
        """
        count = self.count.value.astype(self.m2.value.dtype)
        deviation = jnp.sqrt(self.m2.value / count)
        return Statistics(
            mean=self.mean.value,
            standard_error_of_mean=deviation / jnp.sqrt(count),
            standard_deviation=deviation,
        )


class Accuracy(Average):
    """The fraction of correct predictions.

    Args:
      threshold: For binary classification, the smallest logit of a positive prediction. With the default, None, the
        predicted class is the one with the largest logit.

    Raises:
      ArgumentError: If the threshold is not a number.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> accuracy = liftnn.Accuracy()
      >>> accuracy.update(logits=jnp.array([[0.1, 0.9], [0.8, 0.2]]), labels=jnp.array([1, 1]))
      >>> accuracy.compute()
      Array(0.5, dtype=float32)
    """

    def __init__(self, threshold: float | None = None):
        if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, numbers.Real)):
            raise errors.ArgumentError(
                f"The threshold of an Accuracy must be a number, but it is of type {type(threshold).__qualname__}.",
                "Pass a float for binary classification, or None for several classes.",
            )
        self.threshold = threshold
        super().__init__()

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]  # an accuracy has two arrays to name
        self, *, logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None, **_: Any
    ) -> None:
        """Add predictions to the accuracy.

        Args:
          logits: An array of shape `(*batch, classes)`, or `(*batch,)` with a threshold.
          labels: The correct classes, an integer array of shape `(*batch,)`. With a threshold, labels above 0 are
            positive, and booleans are valid too.
          mask: An array of zeros and ones, or booleans, that broadcasts to the shape of the labels; predictions with
            mask 0 are excluded. The default, None, includes all predictions.
          **_: Other arguments are ignored.

        Raises:
          ArgumentError: If the labels are not integers, if the shapes of logits and labels do not match, or if the mask
            does not broadcast to the labels.
        """
        logits, labels = jnp.asarray(logits), jnp.asarray(labels)
        _check_labels(logits, labels, self.threshold)
        if self.threshold is None:
            classes = logits.argmax(-1)
            right = classes == labels.astype(classes.dtype)
        else:
            right = (logits >= self.threshold) == (labels > jnp.zeros_like(labels))
        super().update(mask, values=right)


def _values(
    arguments: Mapping[str, Any], name: str, mask: ArrayLike | None
) -> tuple[jax.Array, jax.Array | None]:
    """Return the values of an update, with half precision promoted to float32, and the mask in their shape."""
    if name not in arguments:
        names = ", ".join(map(repr, arguments)) or "none"
        raise errors.ArgumentError(
            f"The metric needs the keyword argument {name!r}, but it got: {names}.",
            f"Pass {name}=..., or create the metric with another argname.",
        )
    values = jnp.asarray(arguments[name])
    if values.dtype in (jnp.float16, jnp.bfloat16):
        values = values.astype(jnp.float32)
    if mask is None:
        return values, None
    try:
        return values, jnp.broadcast_to(jnp.asarray(mask), values.shape)
    except ValueError:
        raise errors.ArgumentError(
            f"The mask of a metric has shape {jnp.shape(mask)}, which does not broadcast to the shape {values.shape} "
            f"of {name!r}.",
            "Pass a mask with one entry for each value.",
        ) from None


def _add(state: MetricState, amount: ArrayLike) -> None:
    """Add an amount to a running value, keeping its dtype."""
    state.value = (state.value + amount).astype(state.value.dtype)


def _as_floats(values: jax.Array) -> jax.Array:
    """Return values in float32 or better. The cast is explicit, for `jax_numpy_dtype_promotion="strict"`."""
    keeps = jnp.issubdtype(values.dtype, jnp.inexact) and values.dtype.itemsize >= 4
    return values if keeps else values.astype(jnp.float32)


def _masked_sum(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return the sum of values times mask in float32 or better, without NaNs from masked values."""
    values = _as_floats(values)
    if mask is None:
        return values.sum()
    return jnp.where(mask.astype(bool), values * mask.astype(values.dtype), 0).sum()


def _count(values: jax.Array, mask: jax.Array | None) -> Any:
    """Return the number of values that the mask includes."""
    return values.size if mask is None else mask.astype(bool).sum(dtype=jnp.int32)


def _check_labels(logits: jax.Array, labels: jax.Array, threshold: float | None) -> None:
    """Raise ArgumentError if the shapes or dtypes of logits and labels do not match."""
    if not jnp.issubdtype(labels.dtype, jnp.integer) and not (threshold is not None and labels.dtype == bool):
        raise errors.ArgumentError(
            f"The labels of an Accuracy must be class indices, but they have dtype {labels.dtype.name}.",
            "Pass integers, for example one_hot_labels.argmax(-1).",
        )
    expected = logits.shape[:-1] if threshold is None else logits.shape
    if labels.shape != expected or (threshold is None and logits.ndim == 0):
        classes = "several classes" if threshold is None else "two classes (a threshold)"
        raise errors.ArgumentError(
            f"Accuracy over {classes} needs labels of shape {expected} for logits of shape {logits.shape}, but "
            f"they have shape {labels.shape}.",
            "Pass one label for each row of logits, or a threshold for binary classification with one logit each.",
        )


answer(Metric)
publish(Accuracy, Average, Metric, Statistics, Welford)
