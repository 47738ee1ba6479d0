"""Metrics: running averages over batches, kept in Variables so that transforms carry them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from liftnn import errors
from liftnn._src.modules.module import Module
from liftnn._src.variables.variable_types import MetricState


class Metric(Module):
    """Base class of metrics: something that is updated batch by batch, computed and reset.

    Subclasses define `update`, `compute` and `reset`, and keep what changes in `MetricState` Variables.

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

    # A Module's update takes States, a metric's takes the batch; `liftnn.update(metric, state)` does the former.
    def update(self, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Takes a batch into account.

        Args:
          **kwargs: The batch, by names that the metric chooses.

        Raises:
          NotImplementedError: If the subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__qualname__} does not define update().")

    def compute(self) -> Any:
        """The value over all batches since the last reset.

        Returns:
          The value.

        Raises:
          NotImplementedError: If the subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__qualname__} does not define compute().")

    def reset(self) -> None:
        """Forgets all batches.

        Raises:
          NotImplementedError: If the subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__qualname__} does not define reset().")


class Average(Metric):
    """The average of all values seen.

    Args:
      argname: Name of the keyword argument of `update` that has the values; `"values"` by default.

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
        """Forgets all values."""
        self.total.value = jnp.zeros((), jnp.float32)
        self.count.value = jnp.zeros((), jnp.int32)

    def update(self, mask: jax.Array | None = None, **kwargs: Any) -> None:
        """Adds values to the average.

        Args:
          mask: Zeros and ones, or booleans, that broadcast to the shape of the values: what is zero is left out. The
            default, None, leaves nothing out.
          **kwargs: The values, an array of any shape or a number, under the name `argname`. Other names are ignored.

        Raises:
          ArgumentError: If there is no argument called `argname`, or the mask does not broadcast to the values.
        """
        values, mask = _values(kwargs, self.argname, mask)
        _add(self.total, _masked_sum(values, mask))
        _add(self.count, _count(values, mask))

    def compute(self) -> jax.Array:
        """The average of all values since the last reset.

        Returns:
          A scalar; NaN if there were no values.
        """
        return self.total.value / self.count.value


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Statistics:
    """What `Welford.compute` returns.

    Args:
      mean: The mean, a scalar.
      standard_error_of_mean: The standard deviation divided by the square root of the number of values, a scalar.
      standard_deviation: The root of the mean squared distance from the mean, a scalar.

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
    """Mean and standard deviation of all values seen, exact also where the values are large and close together.

    Args:
      argname: Name of the keyword argument of `update` that has the values; `"values"` by default.

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
        """Forgets all values."""
        self.count.value = jnp.zeros((), jnp.int32)
        self.mean.value = jnp.zeros((), jnp.float32)
        self.m2.value = jnp.zeros((), jnp.float32)

    def update(self, mask: jax.Array | None = None, **kwargs: Any) -> None:
        """Adds values to the statistics.

        Args:
          mask: Zeros and ones, or booleans, that broadcast to the shape of the values: what is zero is left out. The
            default, None, leaves nothing out.
          **kwargs: The values, an array of any shape or a number, under the name `argname`. Other names are ignored.

        Raises:
          ArgumentError: If there is no argument called `argname`, or the mask does not broadcast to the values.
        """
        values, mask = _values(kwargs, self.argname, mask)
        values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        before, added = self.count.value, _count(values, mask)
        after = before + added
        # A batch without values adds nothing: dividing by 1 instead of 0 keeps it from making all NaN.
        mean = _masked_sum(values, mask) / jnp.maximum(added, 1)
        spread = _masked_sum((values - mean) ** 2, mask)
        delta, share = mean - self.mean.value, added / jnp.maximum(after, 1)
        _add(self.mean, delta * share)
        _add(self.m2, spread + delta * delta * before * share)
        _add(self.count, added)

    def compute(self) -> Statistics:
        """The statistics of all values since the last reset.

        Returns:
          The statistics. If there were no values, the mean is 0 and the rest NaN.
        """
        deviation = jnp.sqrt(self.m2.value / self.count.value)
        return Statistics(
            mean=self.mean.value,
            standard_error_of_mean=deviation / jnp.sqrt(self.count.value),
            standard_deviation=deviation,
        )


class Accuracy(Average):
    """The share of predictions that are right.

    Args:
      threshold: For two classes, from which logit on the prediction is positive. The default, None, is for more
        classes: the prediction is the class with the largest logit.

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
        if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, (int, float))):
            raise errors.ArgumentError(
                f"The threshold of an Accuracy is a number, but it is of type {type(threshold).__qualname__}.",
                "Give a float, or None for more than two classes.",
            )
        self.threshold = threshold
        super().__init__()

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]  # an accuracy has two arrays to name
        self, *, logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None, **_: Any
    ) -> None:
        """Adds predictions to the accuracy.

        Args:
          logits: Array of shape `(*batch, classes)`, or with a threshold `(*batch,)`.
          labels: The right classes: integers of shape `(*batch,)`. With a threshold, positive is what is above 0.
          mask: Zeros and ones, or booleans, that broadcast to the shape of the labels: what is zero is left out. The
            default, None, leaves nothing out.
          **_: Other arguments are ignored.

        Raises:
          ArgumentError: If the labels are not integers, or logits and labels differ in shape.
        """
        logits, labels = jnp.asarray(logits), jnp.asarray(labels)
        _check_labels(logits, labels, self.threshold)
        if self.threshold is None:
            right = logits.argmax(-1) == labels
        else:
            right = (logits >= self.threshold) == (labels > 0)
        super().update(mask, values=right)


class MultiMetric(Metric):
    """Several metrics that are updated by the same call.

    Args:
      **metrics: The metrics by name. Each is an attribute of that name.

    Raises:
      ArgumentError: If one is not a `Metric`, or its name is that of a method or attribute of every metric.

    Example:
      >>> import jax.numpy as jnp
      >>> import liftnn
      >>> metrics = liftnn.MultiMetric(accuracy=liftnn.Accuracy(), loss=liftnn.Average("loss"))
      >>> metrics.update(logits=jnp.array([[0.1, 0.9]]), labels=jnp.array([1]), loss=0.25)
      >>> metrics.compute()
      {'accuracy': Array(1., dtype=float32), 'loss': Array(0.25, dtype=float32)}
    """

    def __init__(self, **metrics: Metric):
        for name, metric in metrics.items():
            _check_metric(name, metric)
        self._metric_names = tuple(metrics)
        for name, metric in metrics.items():
            setattr(self, name, metric)

    if TYPE_CHECKING:  # the names are the user's

        def __getattr__(self, name: str) -> Metric: ...

    def reset(self) -> None:
        """Resets all metrics."""
        for name in self._metric_names:
            getattr(self, name).reset()

    def update(self, **updates: Any) -> None:
        """Updates all metrics.

        Args:
          **updates: Passed to the `update` of each metric, which takes what it needs. A `mask` goes to all metrics,
            or, if it is a dict, to the metrics that it names.
        """
        mask = updates.pop("mask", None)
        for name in self._metric_names:
            own = mask.get(name) if isinstance(mask, Mapping) else mask
            getattr(self, name).update(**updates, **({} if own is None else {"mask": own}))

    def compute(self) -> dict[str, Any]:
        """The values of all metrics.

        Returns:
          The values by name.
        """
        return {name: getattr(self, name).compute() for name in self._metric_names}


def _values(
    arguments: Mapping[str, Any], name: str, mask: ArrayLike | None
) -> tuple[jax.Array, jax.Array | None]:
    """The values among the arguments of an update, in float32 at least, and the mask in their shape."""
    if name not in arguments:
        given = ", ".join(map(repr, arguments)) or "none"
        raise errors.ArgumentError(
            f"The metric is updated with the keyword argument {name!r}, but it was given {given}.",
            f"Pass {name}=..., or make the metric with another argname.",
        )
    values = jnp.asarray(arguments[name])
    if values.dtype in (jnp.float16, jnp.bfloat16):
        values = values.astype(jnp.float32)
    if mask is None:
        return values, None
    try:
        return values, jnp.broadcast_to(mask, values.shape)
    except ValueError:
        raise errors.ArgumentError(
            f"The mask of a metric has shape {jnp.shape(mask)}, which does not broadcast to the shape {values.shape} "
            f"of {name!r}.",
            "Give one entry of the mask for each value.",
        ) from None


def _add(state: MetricState, amount: ArrayLike) -> None:
    """Adds to what was accumulated, whose dtype stays."""
    state.value = (state.value + amount).astype(state.value.dtype)


def _masked_sum(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The sum of values times mask, where a masked NaN is no NaN."""
    if mask is None:
        return values.sum()
    return jnp.where(mask == 0, 0, values * mask.astype(values.dtype)).sum()


def _count(values: jax.Array, mask: jax.Array | None) -> Any:
    """How many values the mask lets through."""
    return values.size if mask is None else mask.sum().astype(jnp.int32)


def _check_labels(logits: jax.Array, labels: jax.Array, threshold: float | None) -> None:
    """Raises unless logits and labels fit each other."""
    if not jnp.issubdtype(labels.dtype, jnp.integer) and not (threshold is not None and labels.dtype == bool):
        raise errors.ArgumentError(
            f"Accuracy compares with the numbers of the right classes, but the labels have dtype {labels.dtype.name}.",
            "Give integers, for example one_hot_labels.argmax(-1).",
        )
    expected = logits.shape[:-1] if threshold is None else logits.shape
    if labels.shape != expected or (threshold is None and logits.ndim == 0):
        classes = "several classes" if threshold is None else "two classes (a threshold)"
        raise errors.ArgumentError(
            f"Accuracy over {classes} needs labels of shape {expected} for logits of shape {logits.shape}, but "
            f"they have shape {labels.shape}.",
            "Give one label for each row of logits, or, for two classes with one logit each, a threshold.",
        )


def _check_metric(name: str, metric: Any) -> None:
    """Raises unless a MultiMetric can hold the metric under that name."""
    if not isinstance(metric, Metric):
        raise errors.ArgumentError(
            f"MultiMetric holds metrics, but {name!r} is of type {type(metric).__qualname__}.",
            "Give an instance of Average, Accuracy, Welford or another subclass of Metric.",
        )
    if hasattr(Metric, name) or name in ("mask", "_metric_names"):
        raise errors.ArgumentError(
            f"A metric cannot be called {name!r}: that is a method, attribute or argument of every metric.",
            "Give it another name.",
        )
