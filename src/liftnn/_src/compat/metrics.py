"""Metrics whose method `split` returns the GraphDef first."""

from __future__ import annotations

from typing import Any

from liftnn._src import metrics, multi_metric
from liftnn._src.compat.splitting import split
from liftnn._src.filters import Filter


class Metric(metrics.Metric, pytree=True):
    """Base class of metrics; see `liftnn.Metric`.

    Example:
      >>> from liftnn.compat import nnx
      >>> graphdef, state = nnx.metrics.Average().split()
      >>> list(state)
      ['count', 'total']
    """

    def split(self, *filters: Filter) -> tuple[Any, ...]:
        """Divide the metric into its static part and its dynamic part; see `split`.

        Args:
          *filters: One State is returned for each filter. Without filters, one State has all Variables.

        Returns:
          `(graphdef, *states)`.
        """
        return split(self, *filters)


class Average(metrics.Average, Metric):
    """The average of all values since the last reset; see `liftnn.Average`.

    Args:
      argname: The name of the keyword argument of `update` with the values. The default is `"values"`.

    Example:
      >>> from liftnn.compat import nnx
      >>> loss = nnx.metrics.Average()
      >>> loss.update(values=6.0)
      >>> float(loss.compute())
      6.0
    """


class Accuracy(metrics.Accuracy, Average):  # pyright: ignore[reportIncompatibleMethodOverride]  # it names two arrays
    """The fraction of correct predictions; see `liftnn.Accuracy`.

    Args:
      threshold: For binary classification, the smallest logit of a positive prediction. With the default, None, the
        predicted class is the one with the largest logit.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> accuracy = nnx.metrics.Accuracy()
      >>> accuracy.update(logits=jnp.array([[0.1, 0.9], [0.8, 0.2]]), labels=jnp.array([1, 1]))
      >>> float(accuracy.compute())
      0.5
    """


class Welford(metrics.Welford, Metric):
    """The mean and standard deviation of all values; see `liftnn.Welford`.

    Args:
      argname: The name of the keyword argument of `update` with the values. The default is `"values"`.

    Example:
      >>> import jax.numpy as jnp
      >>> from liftnn.compat import nnx
      >>> metric = nnx.metrics.Welford()
      >>> metric.update(values=jnp.array([1.0, 3.0]))
      >>> float(metric.compute().mean)
      2.0
    """


class MultiMetric(multi_metric.MultiMetric, Metric):
    """Several metrics that are updated together; see `liftnn.MultiMetric`.

    Args:
      **metrics: The metrics by name.

    Example:
      >>> from liftnn.compat import nnx
      >>> metrics = nnx.MultiMetric(loss=nnx.metrics.Average())
      >>> metrics.update(values=6.0)
      >>> float(metrics.compute()["loss"])
      6.0
    """
