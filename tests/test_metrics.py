from __future__ import annotations

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import liftnn
from liftnn import errors

BATCHES = [np.array([1.0, 2.0, 4.0], np.float32), np.array([[3.0, -1.0]], np.float32), np.float32(7)]


def statistics(values):
    """The formulas: mean, standard error of the mean, standard deviation."""
    return values.mean(), values.std() / np.sqrt(values.size), values.std()


def assert_statistics(metric, values):
    found = metric.compute()
    found = (found.mean, found.standard_error_of_mean, found.standard_deviation)
    np.testing.assert_allclose(found, statistics(values), rtol=1e-6)


def test_average_is_that_of_flax_batch_after_batch():
    ours, theirs = liftnn.Average(), nnx.metrics.Average()
    for batch in [*BATCHES, 2, 2.5, np.array([1, 2]), np.array([True, False])]:
        ours.update(values=jnp.asarray(batch))
        theirs.update(values=jnp.asarray(batch))
        np.testing.assert_array_equal(ours.compute(), theirs.compute())


def test_average_takes_numbers_and_numpy_arrays():
    metric = liftnn.Average()
    metric.update(values=2)
    metric.update(values=4.0)
    metric.update(values=np.array([6, 8]))
    assert metric.compute() == 5
    assert (metric.total.value.dtype, metric.count.value.dtype) == (jnp.float32, jnp.int32)


@pytest.mark.parametrize("metric", [liftnn.Average(), liftnn.Accuracy(), liftnn.Accuracy(threshold=0.5)])
def test_an_average_of_nothing_is_nan(metric):
    assert jnp.isnan(metric.compute())


def test_a_reset_forgets_all_and_keeps_the_variables():
    metric = liftnn.Average()
    total = metric.total
    metric.update(values=jnp.ones(3))
    metric.reset()
    assert jnp.isnan(metric.compute())
    metric.update(values=jnp.array([5.0]))
    assert metric.compute() == 5
    assert metric.total is total


@pytest.mark.parametrize("make", [liftnn.Average, liftnn.Accuracy, liftnn.Welford])
def test_a_reset_keeps_the_shapes_that_vmap_made(make):
    metrics = liftnn.vmap(lambda _: liftnn.MultiMetric(loss=make()), in_axes=0, out_axes=0)(jnp.arange(3))
    metrics.reset()
    values = jax.tree.leaves(liftnn.state(metrics).to_pure_dict())
    assert [x.tolist() for x in values] == [[0, 0, 0]] * len(values)


def test_the_values_can_have_another_name_and_the_rest_is_ignored():
    metric = liftnn.Average("loss")
    metric.update(loss=jnp.array([1.0, 3.0]), logits=None, values="no number")
    assert metric.compute() == 2


def test_low_precision_values_are_added_up_in_float32():
    metric = liftnn.Average()
    metric.update(values=jnp.full((1000,), 1.0078125, jnp.bfloat16))
    assert metric.compute() == 1.0078125


@pytest.mark.sample(2)
@pytest.mark.parametrize("make", [liftnn.Average, liftnn.Welford])
def test_what_was_accumulated_keeps_its_dtype(make):
    metric = make()
    states = [metric.total] if make is liftnn.Average else [metric.mean, metric.m2]
    for state in states:
        state.value = state.value.astype(jnp.float16)
    metric.update(values=jnp.ones(3))
    assert {state.value.dtype for state in states} == {jnp.dtype(jnp.float16)}


@pytest.mark.sample(3)
@pytest.mark.parametrize("dtype", [bool, jnp.int32, jnp.float32])
def test_masked_averages_are_those_of_flax(dtype):
    ours, theirs = liftnn.Average(), nnx.metrics.Average()
    values, mask = jnp.arange(6.0).reshape(2, 3), jnp.array([[1, 0, 1], [0, 0, 1]]).astype(dtype)
    ours.update(values=values, mask=mask)
    theirs.update(values=values, mask=mask)
    assert ours.compute() == theirs.compute() == 7 / 3


def test_a_mask_that_broadcasts_counts_each_value_that_it_lets_through():
    metric = liftnn.Average()
    metric.update(values=jnp.arange(6.0).reshape(2, 3), mask=jnp.array([[True], [False]]))
    assert metric.compute() == 1


@pytest.mark.parametrize("mask", [[1, 0, 1], (True, False, True)], ids=repr)
def test_a_mask_may_be_a_list_as_values_may(mask):
    average, accuracy = liftnn.Average(), liftnn.Accuracy()
    average.update(values=[1.0, 2.0, 6.0], mask=mask)
    accuracy.update(logits=[[0.0, 1.0]] * 3, labels=[1, 0, 0], mask=mask)
    assert (float(average.compute()), float(accuracy.compute())) == (3.5, 0.5)


def test_nan_behind_the_mask_does_not_count():
    average, welford = liftnn.Average(), liftnn.Welford()
    for metric in (average, welford):
        metric.update(values=jnp.array([1.0, jnp.nan, jnp.inf]), mask=jnp.array([1, 0, 0]))
    assert average.compute() == welford.compute().mean == 1


@pytest.mark.thorough
def test_accuracy_is_that_of_flax_batch_after_batch():
    ours, theirs = liftnn.Accuracy(), nnx.metrics.Accuracy()
    for seed in range(3):
        logits = jax.random.normal(jax.random.key(seed), (5, 4, 3))
        labels = jax.random.randint(jax.random.key(seed + 9), (5, 4), 0, 3)
        mask = labels > 0
        ours.update(logits=logits, labels=labels, mask=mask, loss=0.0)
        theirs.update(logits=logits, labels=labels, mask=mask, loss=0.0)
        np.testing.assert_array_equal(ours.compute(), theirs.compute())


def test_accuracy_with_a_threshold_is_that_of_flax():
    ours, theirs = liftnn.Accuracy(threshold=0.5), nnx.metrics.Accuracy(threshold=0.5)
    logits, labels = jnp.array([0.5, 0.4, 0.9, -3.0]), jnp.array([1, 1, 0, 0])
    ours.update(logits=logits, labels=labels)
    theirs.update(logits=logits, labels=labels)
    assert ours.compute() == theirs.compute() == 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.int16])
def test_labels_can_be_integers_of_any_kind(dtype):
    metric = liftnn.Accuracy()
    metric.update(logits=np.eye(3), labels=np.array([0, 1, 1], dtype))
    assert metric.compute() == jnp.float32(2 / 3)


@pytest.mark.thorough
def test_welford_is_that_of_flax_and_of_the_formula_batch_after_batch():
    ours, theirs = liftnn.Welford(), nnx.metrics.Welford()
    for batch in BATCHES:
        ours.update(values=jnp.asarray(batch))
        theirs.update(values=jnp.asarray(batch))
        mine, flax = ours.compute(), theirs.compute()
        for name in ("mean", "standard_error_of_mean", "standard_deviation"):
            np.testing.assert_allclose(getattr(mine, name), getattr(flax, name), rtol=1e-6)
    assert_statistics(ours, np.concatenate([np.ravel(b) for b in BATCHES]))


def test_welford_of_nothing_has_mean_zero_and_nan_deviations_as_in_flax():
    ours, theirs = liftnn.Welford().compute(), nnx.metrics.Welford().compute()
    assert ours.mean == theirs.mean == 0
    assert jnp.isnan(ours.standard_deviation)
    assert jnp.isnan(theirs.standard_deviation)
    assert jnp.isnan(ours.standard_error_of_mean)


def test_welford_is_exact_for_large_values_close_together():
    metric, values = liftnn.Welford(), 1e4 + np.arange(8, dtype=np.float32)
    for batch in values.reshape(4, 2):
        metric.update(values=jnp.asarray(batch))
    np.testing.assert_allclose(metric.compute().standard_deviation, values.std(), rtol=1e-3)


def test_welford_leaves_out_what_the_mask_does():
    metric, values = liftnn.Welford(), np.arange(6, dtype=np.float32)
    metric.update(values=jnp.asarray(values), mask=jnp.array([1, 1, 0, 0, 0, 0]))
    metric.update(values=jnp.asarray(values), mask=jnp.zeros(6))
    metric.update(values=jnp.asarray(values), mask=jnp.array([0, 0, 0, 1, 0, 1]))
    assert_statistics(metric, values[[0, 1, 3, 5]])


def test_welford_takes_numbers_and_integers():
    metric = liftnn.Welford("x")
    metric.update(x=3)
    metric.update(x=jnp.array([4, 8]))
    assert_statistics(metric, np.array([3.0, 4.0, 8.0]))
    metric.reset()
    assert metric.compute().mean == 0
    assert [v.value.dtype for v in (metric.count, metric.mean, metric.m2)] == [
        jnp.int32,
        jnp.float32,
        jnp.float32,
    ]


def test_statistics_are_a_pytree():
    one = liftnn.Statistics(1.0, 2.0, 3.0)
    assert jax.tree.map(lambda x: 2 * x, one) == liftnn.Statistics(2.0, 4.0, 6.0)


def make_both():
    return (
        liftnn.MultiMetric(accuracy=liftnn.Accuracy(), loss=liftnn.Average()),
        nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average()),
    )


@pytest.mark.parametrize(
    "mask",
    [None, jnp.array([1, 0, 1]), {"loss": jnp.array([1, 0, 0])}, {}],
    ids=["none", "array", "loss", "empty"],
)
def test_multi_metric_is_that_of_flax(mask):
    ours, theirs = make_both()
    batch = {
        "logits": jnp.eye(3),
        "labels": jnp.array([0, 1, 1]),
        "values": jnp.array([1.0, 2.0, 6.0]),
        "mask": mask,
    }
    ours.update(**batch)
    theirs.update(**batch)
    assert ours.compute() == theirs.compute()


def test_multi_metric_resets_all_and_keeps_the_names():
    metrics, _ = make_both()
    metrics.update(logits=jnp.eye(2), labels=jnp.array([0, 1]), values=1.0)
    metrics.reset()
    values = metrics.compute()
    assert list(values) == ["accuracy", "loss"]
    assert all(jnp.isnan(v) for v in values.values())
    assert isinstance(metrics.loss, liftnn.Average)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_update_that_fails_updates_no_metric(compiled):
    metrics = liftnn.MultiMetric(loss=liftnn.Average("loss"), accuracy=liftnn.Accuracy())

    def step(metrics, loss, logits, labels):
        metrics.update(loss=loss, logits=logits, labels=labels)

    step = liftnn.jit(step) if compiled else step
    step(metrics, jnp.float32(2.0), jnp.eye(2), jnp.array([0, 1]))
    with pytest.raises(errors.ArgumentError, match="labels of an Accuracy must be class indices"):
        step(metrics, jnp.float32(4.0), jnp.eye(2), jnp.array([0.0, 1.0]))
    assert metrics.compute() == {"loss": 2.0, "accuracy": 1.0}


class Everything(liftnn.Metric):
    """A metric that holds what it has seen in every way that a module can."""

    def __init__(self):
        self.variable = liftnn.MetricState(jnp.zeros(()), on_set_value=lambda _, x: 2 * x)
        self.array = jnp.zeros(())
        self.n = 0
        self.values = []
        self.by_name = {"sums": (liftnn.MetricState(0.0), [jnp.zeros(())])}
        self.part = Box(liftnn.MetricState(0.0), 0)

    def update(self, *, values, **_):
        self.variable.value += values
        self.variable.set_metadata(seen=True)
        self.array = self.array + values
        self.n += 1
        self.values.append(self.array)
        self.by_name["sums"][0].value += values
        self.by_name["sums"][1][0] += values
        self.by_name["last"] = self.array
        self.part.variable.value += values
        self.part.n += 1
        self.first = liftnn.MetricState(self.array)


@dataclasses.dataclass
class Box:
    variable: liftnn.MetricState
    n: int


@pytest.mark.parametrize("compiled", [False, True])
def test_an_update_that_fails_changes_nothing_that_a_metric_holds(compiled):
    metrics = liftnn.MultiMetric(everything=Everything(), loss=liftnn.Average("loss"))
    before = liftnn.split(metrics)

    def step(metrics, values):
        with contextlib.suppress(errors.ArgumentError):  # there is no loss
            metrics.update(values=values)

    (liftnn.jit(step) if compiled else step)(metrics, jnp.float32(3.0))
    state, graphdef = liftnn.split(metrics)
    assert graphdef == before[1]
    assert state.to_pure_dict() == before[0].to_pure_dict()


def test_an_update_that_fails_in_a_trace_updates_no_metric():
    metrics = liftnn.MultiMetric(loss=liftnn.Average("loss"), accuracy=liftnn.Accuracy())

    @liftnn.jit
    def step(loss):
        try:
            metrics.update(loss=loss, logits=jnp.eye(2), labels=jnp.array([0.0, 1.0]))
        except errors.ArgumentError:
            metrics.loss.update(loss=2 * loss)

    step(1.0)
    assert metrics.loss.compute() == 2.0


def test_the_state_is_in_metric_states():
    metrics, _ = make_both()
    state, graphdef = metrics.split(liftnn.MetricState)
    assert len(jax.tree.leaves(state)) == 4
    assert graphdef.merge(state).compute().keys() == {"accuracy", "loss"}


def test_metrics_are_updated_inside_jit():
    metrics, _ = make_both()

    @liftnn.jit
    def step(metrics, logits, labels):
        metrics.update(logits=logits, labels=labels, values=logits.sum())

    for _ in range(3):
        step(metrics, jnp.eye(2), jnp.array([0, 0]))
    assert metrics.compute() == {"accuracy": 0.5, "loss": 2}
    assert step.n_traces == 1


def test_metrics_count_once_inside_value_and_grad_inside_jit():
    model, metrics = liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)), liftnn.Average("loss")

    @liftnn.jit
    def step(model, metrics, x):
        def loss_fn(model, metrics):
            loss = (model(x) ** 2).mean()
            metrics.update(loss=loss)
            return loss

        return liftnn.value_and_grad(loss_fn)(model, metrics)[0]

    first, second = step(model, metrics, jnp.ones((1, 2))), step(model, metrics, 2 * jnp.ones((1, 2)))
    np.testing.assert_allclose(metrics.compute(), (first + second) / 2, rtol=1e-6)
    assert metrics.count.value == 2


@pytest.mark.parametrize("metric", [liftnn.Average("loss"), liftnn.Welford("loss")])
def test_missing_values_are_refused_with_the_names_that_were_given(metric):
    with pytest.raises(errors.ArgumentError) as info:
        metric.update(values=1.0, logits=2.0)
    assert str(info.value) == (
        "The metric needs the keyword argument 'loss', but it got: 'values', 'logits'.\n"
        "Pass loss=..., or create the metric with another argname."
    )


def test_a_mask_that_does_not_broadcast_is_refused_and_changes_nothing():
    metric = liftnn.Average()
    with pytest.raises(errors.ArgumentError) as info:
        metric.update(values=jnp.ones((2, 3)), mask=jnp.ones((2,)))
    assert str(info.value) == (
        "The mask of a metric has shape (2,), which does not broadcast to the shape (2, 3) of 'values'.\n"
        "Pass a mask with one entry for each value."
    )
    assert metric.total.value == metric.count.value == 0


@pytest.mark.parametrize("threshold", [np.float32(0.5), np.float64(0.5), np.int8(1)], ids=repr)
def test_a_threshold_may_be_a_number_of_numpy(threshold):
    accuracy = liftnn.Accuracy(threshold)
    update = liftnn.jit(lambda accuracy, logits: accuracy.update(logits=logits, labels=jnp.array([1, 1, 0])))
    update(accuracy, jnp.array([0.4, 1.5, 0.3]))
    update(accuracy, jnp.array([1.0, 1.0, 1.0]))
    assert float(accuracy.compute()) == pytest.approx(4 / 6)
    assert update.n_traces == 1


@pytest.mark.parametrize("threshold", ["high", True, np.True_, jnp.ones(2)])
def test_a_threshold_that_is_no_number_is_refused(threshold):
    with pytest.raises(
        errors.ArgumentError, match="The threshold of an Accuracy must be a number, but it is of type"
    ):
        liftnn.Accuracy(threshold)


def test_labels_that_are_not_integers_are_refused():
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.Accuracy().update(logits=jnp.eye(2), labels=jnp.array([0.0, 1.0]))
    assert str(info.value) == (
        "The labels of an Accuracy must be class indices, but they have dtype float32.\n"
        "Pass integers, for example one_hot_labels.argmax(-1)."
    )


@pytest.mark.parametrize(
    "threshold, logits, labels",
    [(None, (4, 3), (4, 3)), (None, (4, 3), (1,)), (None, (4,), (4,)), (0.5, (4, 1), (4,)), (None, (), ())],
)
def test_labels_of_another_shape_are_refused(threshold, logits, labels):
    with pytest.raises(errors.ArgumentError, match=r"Accuracy over .* needs labels of shape"):
        liftnn.Accuracy(threshold).update(logits=jnp.zeros(logits), labels=jnp.zeros(labels, int))


@pytest.mark.parametrize("name", ["update", "compute", "reset", "split", "train", "mask"])
def test_names_that_every_metric_has_are_refused(name):
    with pytest.raises(errors.ArgumentError) as info:
        liftnn.MultiMetric(**{name: liftnn.Average()})
    assert str(info.value) == (
        f"A metric cannot be named {name!r}: every metric has a method, attribute or argument of that name.\n"
        "Use another name."
    )


def test_something_else_than_a_metric_is_refused():
    with pytest.raises(
        errors.ArgumentError, match="MultiMetric must be metrics, but 'loss' is of type float"
    ):
        liftnn.MultiMetric(loss=0.0)


@pytest.mark.parametrize("method", ["update", "compute", "reset"])
def test_a_metric_that_lacks_a_method_says_which(method):
    class Incomplete(liftnn.Metric):
        pass

    with pytest.raises(NotImplementedError, match=f"Incomplete does not define {method}"):
        getattr(Incomplete(), method)()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "int8", "bool"])
def test_a_mask_of_any_dtype_counts_exactly(dtype):
    n = 5003
    mask = jnp.ones(n, dtype).at[0].set(jnp.zeros((), dtype))
    accuracy, average, welford = liftnn.Accuracy(), liftnn.Average(), liftnn.Welford()
    accuracy.update(logits=jax.nn.one_hot(jnp.zeros(n, int), 3), labels=jnp.zeros(n, int), mask=mask)
    average.update(values=jnp.full(n, 2.0), mask=mask)
    welford.update(values=jnp.full(n, 2.0), mask=mask)
    assert float(accuracy.compute()) == 1
    assert float(average.compute()) == 2
    assert float(welford.compute().mean) == 2


@pytest.mark.parametrize("values", [np.full(3, 2**30, np.int32), np.full(5003, 1.0, "bfloat16")], ids=str)
def test_sums_are_computed_in_float32(values):
    average = liftnn.Average()
    average.update(values=jnp.asarray(values))
    assert float(average.compute()) == float(np.mean(values.astype(np.float64)))


@pytest.mark.parametrize("dtype", [bool, jnp.int32, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("mask", [None, [1, 0, 1, 1]])
def test_metrics_need_no_implicit_promotion_of_dtypes(dtype, mask):
    values = np.array([1.0, 0.0, 0.0, 1.0])
    kept = values if mask is None else values[np.array(mask) > 0]
    mask = None if mask is None else jnp.array(mask)
    average, welford, accuracy = liftnn.Average(), liftnn.Welford(), liftnn.Accuracy()
    with jax.numpy_dtype_promotion("strict"):
        for _ in range(2):
            average.update(mask, values=jnp.asarray(values, dtype))
            welford.update(mask, values=jnp.asarray(values, dtype))
            accuracy.update(logits=jnp.eye(2)[jnp.array([1, 0, 0, 1])], labels=jnp.ones(4, int), mask=mask)
        statistics = welford.compute()
        found = [average.compute(), accuracy.compute(), statistics.mean, statistics.standard_deviation]
    np.testing.assert_allclose(found, [kept.mean()] * 3 + [kept.std()], rtol=1e-6)
    assert {x.dtype for x in found} == {jnp.float32.dtype}


@pytest.mark.parametrize("dtype", [bool, jnp.int8, jnp.uint32, jnp.bfloat16])
def test_masks_need_no_implicit_promotion(dtype):
    average = liftnn.Average()
    with jax.numpy_dtype_promotion("strict"):
        average.update(jnp.array([1, 0, 1]).astype(dtype), values=jnp.array([1.0, jnp.nan, 3.0]))
    assert float(average.compute()) == 2


@pytest.mark.parametrize("dtype, threshold", [
    (jnp.int8, None), (jnp.uint32, None), (bool, 0.5), (jnp.int8, 0.5), (jnp.uint32, 0.5),
])  # fmt: skip
def test_labels_need_no_implicit_promotion(dtype, threshold):
    accuracy = liftnn.Accuracy(threshold)
    logits = (
        jnp.array([[2.0, 1.0], [1.0, 2.0], [1.0, 2.0]]) if threshold is None else jnp.array([0.1, 0.9, 0.9])
    )
    with jax.numpy_dtype_promotion("strict"):
        accuracy.update(logits=logits, labels=jnp.array([0, 1, 0]).astype(dtype))
    np.testing.assert_allclose(accuracy.compute(), 2 / 3, rtol=1e-6)
