"""The ensemble example: its output, its members against the same models trained alone, its scores."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import liftnn
from tests.examples.example import PNG_SIGNATURE, imported, match, run_here

NUMBER = r"(\d+\.\d{4})"
SCORES = rf"accuracy {NUMBER}, calibration error {NUMBER}, loss {NUMBER}"


@pytest.fixture(scope="module")
def example():
    with imported("ensemble") as load:
        yield {name: load(name) for name in ("data", "model", "scores", "train")}


@pytest.mark.thorough
def test_a_short_run_prints_the_scores_of_members_and_ensemble_and_draws_them(tmp_path):
    result = run_here(
        "ensemble", "--limit", 1280, "--epochs", 2, "--members", 3, "--batch-size", 64, "--output", tmp_path
    )

    assert (result.returncode, result.stderr) == (0, "")
    lines = [line for line in result.stdout.splitlines() if " images/s" not in line]
    epochs = [rf"epoch {i}/2: train loss {NUMBER} \({NUMBER} to {NUMBER}\), \d+\.\d s" for i in (1, 2)]
    scores = [rf"  one model: {SCORES} \(accuracy from {NUMBER} to {NUMBER}\)", rf"  ensemble:  {SCORES}"]
    time = r"one step: 3 models \d+\.\d ms, one model \d+\.\d ms, ratio \d+\.\d"
    patterns = [
        r"3 models with 101,770 parameters each on 1,280 images, seeds from 0, cpu", *epochs,
        "test digits:", *scores, "test digits with noise of 0.3:", *scores,
        time, f"plot: {tmp_path / 'calibration.png'}", r"finished in \d+ s",
    ]  # fmt: skip
    found = match(patterns, lines)
    mean, _, _, worst, best = map(float, found[4])
    assert worst <= mean <= best
    assert float(found[5][0]) > 0.7
    assert (tmp_path / "calibration.png").read_bytes().startswith(PNG_SIGNATURE)


@pytest.mark.thorough
def test_a_member_is_what_the_same_model_trained_alone_with_its_seed_and_learning_rate_is(example):
    train, create = example["train"], example["model"].create
    random = np.random.default_rng(0)
    batches = [
        (random.integers(256, size=(8, 28, 28, 1)).astype(np.uint8), random.integers(10, size=8))
        for _ in range(3)
    ]
    options = type("Options", (), {"members": 3, "seed": 5, "learning_rates": [1e-4, 1e-2]})
    models, optimizers, rates = train.create_all(options, 3)
    losses = np.stack([train.train_step(models, optimizers, *batch) for batch in batches])

    np.testing.assert_allclose(rates, [1e-4, 1e-3, 1e-2], rtol=1e-6)
    for i in range(3):
        model, optimizer = create(5 + i, float(rates[i]), 3)
        alone = [train.single_step(model, optimizer, *batch) for batch in batches]
        np.testing.assert_allclose(losses[:, i], alone, rtol=1e-5)
        for x, y in zip(
            *(jax.tree.leaves(liftnn.state(m, liftnn.Param)) for m in (models, model)), strict=True
        ):
            # the mean: where a gradient is zero up to rounding, adam makes a step of either sign
            assert abs(x[i] - y).mean() < 1e-5 * abs(y).mean()


def test_scores_are_those_of_the_formulas(example):
    random = np.random.default_rng(0)
    labels = random.integers(4, size=500)
    logits = random.normal(size=(500, 4)) + 2 * np.eye(4)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = example["scores"].score(probabilities, labels)

    bins = {}
    for row, label in zip(probabilities, labels, strict=True):
        edge = next(i for i in range(15) if row.max() <= (i + 1) / 15)
        bins.setdefault(edge, []).append((row.max(), row.argmax() == label))
    error = sum(abs(sum(c for c, _ in x) - sum(r for _, r in x)) for x in bins.values()) / 500
    right = sum(row.argmax() == label for row, label in zip(probabilities, labels, strict=True)) / 500
    loss = -sum(np.log(row[label]) for row, label in zip(probabilities, labels, strict=True)) / 500
    np.testing.assert_allclose(scores, (right, error, loss), rtol=1e-12)


def test_noise_has_its_deviation_and_leaves_pixels_in_their_range(example):
    gray = np.full((50, 28, 28, 1), 128, np.uint8)
    noisy = example["data"].add_noise(gray, 0.1, 0)
    assert noisy.dtype == np.uint8
    assert abs(noisy.std() / 25.5 - 1) < 0.02
    assert set(np.unique(example["data"].add_noise(gray, 100.0, 0))) >= {0, 255}


def test_a_missing_file_is_one_line_and_exit_code_2(tmp_path):
    result = run_here("ensemble", "--data", tmp_path, "--output", tmp_path / "out")

    assert (result.returncode, result.stdout) == (2, "")
    file = tmp_path / "train-images-idx3-ubyte.xz"
    assert result.stderr.startswith(f"train.py: error: {file} is missing; copy it from ")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--members", "1"], "argument --members: '1' is not a whole number from 2 to 1000"),
        (["--limit", "100"], "argument --batch-size: 128 is more than --limit 100"),
        (["--learning-rates", "1", "0"], "argument --learning-rates: '0' is not a number above 0"),
        (["--output", __file__], f"argument --output: cannot make the folder {__file__} (File exists)"),
    ],
)
def test_a_wrong_option_is_named_with_exit_code_2(options, message):
    result = run_here("ensemble", *options)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"train.py: error: {message}"
