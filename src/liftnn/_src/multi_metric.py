"""A collection of metrics that are updated by the same call, all of them or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from liftnn import errors
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.kinds import MODULE, VARIABLE
from liftnn._src.graph.undo import Former, restore
from liftnn._src.metrics import Metric
from liftnn._src.publish import publish
from liftnn._src.variables import frames


class MultiMetric(Metric):
    """A collection of metrics that are updated by the same call.

    Args:
      **metrics: The metrics by name. Each is an attribute of that name.

    Raises:
      ArgumentError: If a value is not a `Metric`, or if a name is that of a method or attribute of `Metric`.

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

    if TYPE_CHECKING:  # attribute names are chosen by the user

        def __getattr__(self, name: str) -> Metric: ...

    def reset(self) -> None:
        """Reset all metrics."""
        for name in self._metric_names:
            getattr(self, name).reset()

    def update(self, **updates: Any) -> None:
        """Update all metrics.

        Args:
          **updates: Keyword arguments for the `update` of each metric, which ignores those that it does not need. A
            `mask` is passed to all metrics; a dict of masks by name, to the metrics that it names.

        Raises:
          Exception: What the `update` of a metric raises; then no metric has been updated.
        """
        mask = updates.pop("mask", None)
        former = list(map(Former, _writable_parts(self)))
        try:
            for name in self._metric_names:
                metric_mask = mask.get(name) if isinstance(mask, Mapping) else mask
                getattr(self, name).update(
                    **updates, **({} if metric_mask is None else {"mask": metric_mask})
                )
        except BaseException:
            restore(former)
            raise

    def compute(self) -> dict[str, Any]:
        """Compute the values of all metrics.

        Returns:
          A dict of values by name.
        """
        return {name: getattr(self, name).compute() for name in self._metric_names}


def _writable_parts(metrics: MultiMetric) -> Iterator[Any]:
    """Yield the modules, Variables and containers that an update may change; the copies of captured Variables."""
    walked = walk_tree(metrics)
    for x, spec in zip(walked.objects, walked.graphdef.specs, strict=True):
        if spec.kind is VARIABLE:
            yield frames.resolve(x) if frames.open_frames else x
        elif not spec.kind.frozen and (spec.kind is not MODULE or frames.may_write(x._owner)):
            yield x


def _check_metric(name: str, metric: Any) -> None:
    """Raise ArgumentError if a MultiMetric cannot have this metric under this name."""
    if not isinstance(metric, Metric):
        raise errors.ArgumentError(
            f"The arguments of MultiMetric must be metrics, but {name!r} is of type {type(metric).__qualname__}.",
            "Pass an instance of Average, Accuracy, Welford or another subclass of Metric.",
        )
    if hasattr(Metric, name) or name in ("mask", "_metric_names"):
        raise errors.ArgumentError(
            f"A metric cannot be named {name!r}: every metric has a method, attribute or argument of that name.",
            "Use another name.",
        )


publish(MultiMetric)
