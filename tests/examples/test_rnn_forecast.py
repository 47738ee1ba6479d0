"""The forecast example: its output, its scans against Python loops, its series and baselines against formulas."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

import liftnn
from tests.examples.example import PNG_SIGNATURE, imported, match, run_here

NUMBER = r"(\d+\.\d{4})"
ROWS = ("last value", "the day before", "the week before", "GRU", "the formula without its noise")


@pytest.fixture(scope="module")
def example():
    with imported("rnn_forecast") as load:
        yield {name: load(name) for name in ("data", "model", "train")}


@pytest.fixture
def model(example):
    return example["model"].Forecaster(5, 6, 2, rngs=liftnn.Rngs(0, noise=1))


@pytest.mark.thorough
def test_a_short_run_prints_its_losses_and_the_errors_of_all_forecasts_and_draws_them(tmp_path):
    sizes = ("--series", 8, "--test-series", 3, "--known", 7, "--days", 1, "--batch-size", 4)
    result = run_here("rnn_forecast", *sizes, "--hidden", 8, "--paths", 4, "--steps", 5, "--output", tmp_path)

    assert (result.returncode, result.stderr) == (0, "")
    lines = [line for line in result.stdout.splitlines() if " hours/s" not in line]
    patterns = [
        r"([\d,]+) parameters, 8 series of 192 hours, seed 0, cpu",
        *(rf"step {i}/5: loss (-?\d+\.\d{{4}}), \d+\.\d s" for i in range(1, 6)),
        "mean absolute error over 1 days of 3 series that were not seen:",
        *(rf"  {name} +{NUMBER}" for name in ROWS),
        r"inside the interval of 90 %: \d+\.\d% of the values",
        f"plot: {tmp_path / 'forecast.png'}",
        r"finished in \d+ s",
    ]
    found = match(patterns, lines)
    assert float(found[5][0]) < float(found[1][0])
    assert (tmp_path / "forecast.png").read_bytes().startswith(PNG_SIGNATURE)


@pytest.mark.thorough
def test_teacher_forcing_by_scan_is_a_python_loop_over_the_true_values(example, model):
    series = example["data"].make(3, 20, 0)
    hidden, normal = model.read(series.values, series.features)

    state = model.start(3)
    for t in range(1, 20):
        state, expected = model.step(state, series.values[:, t - 1], series.features[:, t])
        np.testing.assert_allclose(normal.mean[:, t - 1], expected.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(normal.deviation[:, t - 1], expected.deviation, rtol=1e-5)
    for ours, theirs in zip(hidden, state, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_a_forecast_by_scan_is_a_python_loop_that_feeds_the_values_it_draws(example, model):
    series = example["data"].make(3, 20, 0)
    twin = liftnn.clone(model)
    paths = model.forecast(series.values[:, :12], series.features)

    hidden, _ = twin.read(series.values[:, :12], series.features[:, :12])
    value = series.values[:, 11]
    for t in range(12, 20):
        hidden, normal = twin.step(hidden, value, series.features[:, t])
        value = normal.mean + normal.deviation * twin.rngs.noise.normal((3,))
        np.testing.assert_allclose(paths[:, t - 12], value, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_each_path_has_noise_of_its_own_and_so_has_each_call(example, model):
    series = example["data"].make(2, 12, 0)
    first, second = (example["train"].forecast(model, series.values[:, :8], series.features, 5) for _ in "ab")
    assert first.shape == (5, 2, 4)
    assert len(np.unique(np.concatenate([first, second]))) == 2 * 5 * 2 * 4


def test_the_log_density_is_that_of_scipy(example):
    mean, deviation, values = np.random.default_rng(0).uniform(0.1, 2, size=(3, 50)).astype(np.float32)
    ours = example["model"].Normal(mean, deviation).log_density(values)
    np.testing.assert_allclose(ours, scipy.stats.norm.logpdf(values, mean, deviation), rtol=1e-4, atol=1e-5)


def test_the_last_feature_is_the_value_of_a_week_before_and_the_others_repeat_each_week(example):
    series = example["data"].make(3, 400, 0)
    np.testing.assert_array_equal(series.features[:, 168:, 4], series.values[:, :-168])
    np.testing.assert_array_equal(series.features[:, 168:, :4], series.features[:, :-168, :4])


def test_baselines_repeat_what_was_known(example):
    known = np.random.default_rng(0).normal(size=(2, 400))
    found = example["train"].baselines(known, 200)
    for name, period in (("last value", 1), ("the day before", 24), ("the week before", 168)):
        row = known[0].tolist()
        for _ in range(200):
            row.append(row[-period])
        assert found[name][0].tolist() == row[400:]


def test_the_noise_of_a_series_has_the_deviation_and_the_memory_that_it_should(example):
    series = example["data"].make(50, 2000, 0)
    noise = series.values - series.noiseless
    assert abs(noise.std() - 0.2) < 0.01
    assert abs((noise[:, 1:] * noise[:, :-1]).mean() / noise.var() - 0.9) < 0.01


@pytest.mark.parametrize(
    "options, message",
    [
        (["--known", "6"], "argument --known: '6' is not a whole number from 7 on"),
        (["--days", "8"], "argument --days: '8' is not a whole number from 1 to 7"),
        (["--series", "10"], "argument --batch-size: 32 is more than --series 10"),
        (["--output", __file__], f"argument --output: cannot make the folder {__file__} (File exists)"),
    ],
)
def test_a_wrong_option_is_named_with_exit_code_2(options, message):
    result = run_here("rnn_forecast", *options)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"train.py: error: {message}"
