"""The autoencoder example: its output, and its bounds against formulas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import liftnn
from tests.examples.example import PNG_SIGNATURE, imported, match, run_here

NUMBER = r"(-\d+\.\d\d)"


@pytest.fixture(scope="module")
def example():
    with imported("vae") as load:
        yield {name: load(name) for name in ("model", "train")}


@pytest.fixture
def model(example):
    return example["model"].Vae(8, 3, rngs=liftnn.Rngs(0, codes=1, pixels=2))


@pytest.fixture
def images():
    return (np.random.default_rng(0).random((5, 784)) < 0.3).astype(np.float32)


@pytest.mark.thorough
def test_a_short_run_prints_its_bounds_and_draws_digits(tmp_path):
    sizes = ("--limit", 512, "--epochs", 2, "--hidden", 16, "--latents", 2)
    result = run_here("vae", *sizes, "--output", tmp_path)

    assert (result.returncode, result.stderr) == (0, "")
    lines = [line for line in result.stdout.splitlines() if " images/s" not in line]
    epochs = [rf"epoch {i}/2: train ELBO {NUMBER}, test ELBO {NUMBER}, \d+\.\d s" for i in (1, 2)]
    patterns = [
        r"[\d,]+ parameters, 2 latents, 512 images, seed 0, cpu", *epochs,
        f"pictures: {tmp_path / 'elbo.png'}, {tmp_path / 'digits.png'}", rf"test ELBO: {NUMBER} nats",
        rf"log-likelihood of 1,000 test images, estimated with 100 codes each: {NUMBER} nats",
        r"finished in \d+ s",
    ]  # fmt: skip
    found = match(patterns, lines)
    assert float(found[2][1]) > float(found[1][1])
    assert found[4] == found[2][1:]
    for name in ("elbo.png", "digits.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG_SIGNATURE)


def test_the_log_likelihood_of_pixels_is_that_of_scipy(example, images):
    logits = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)
    ours = example["model"].log_likelihood(logits, images)
    expected = scipy.stats.bernoulli.logpmf(images, scipy.special.expit(logits)).sum(1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_the_divergence_is_the_integral_that_defines_it(example):
    mean, log_variance = jnp.array([[0.5], [-1.0]]), jnp.array([[0.3], [-2.0]])
    x = np.linspace(-12, 12, 20_001)
    ours = example["model"].divergence(mean, log_variance)
    for i in range(2):
        q = scipy.stats.norm(float(mean[i, 0]), float(np.exp(log_variance[i, 0] / 2)))
        integral = np.trapezoid(q.pdf(x) * (q.logpdf(x) - scipy.stats.norm.logpdf(x)), x)
        np.testing.assert_allclose(ours[i], integral, rtol=1e-4)


@pytest.mark.thorough
def test_a_log_weight_is_likelihood_and_prior_less_posterior(model, images):
    twin = liftnn.clone(model)
    ours = model.log_weight(images)

    mean, log_variance = twin.encoder(images)
    codes = mean + jnp.exp(log_variance / 2) * twin.rngs.codes.normal(mean.shape)
    likelihood = scipy.stats.bernoulli.logpmf(images, scipy.special.expit(np.asarray(twin.decoder(codes))))
    prior = scipy.stats.norm.logpdf(codes)
    posterior = scipy.stats.norm.logpdf(codes, mean, jnp.exp(log_variance / 2))
    np.testing.assert_allclose(ours, likelihood.sum(1) + (prior - posterior).sum(1), rtol=1e-5)


@pytest.mark.thorough
def test_the_bound_is_the_mean_of_log_weights_and_below_the_estimate_of_the_likelihood(
    example, model, images
):
    draw = liftnn.jit(
        lambda model, n: liftnn.vmap(lambda _: (model.elbo(images), model.log_weight(images)))(jnp.arange(n)),
        static_argnums=1,
    )
    bounds, weights = draw(model, 4000)
    spread = np.sqrt((bounds.var(0) + weights.var(0)) / 4000)
    assert (abs(bounds.mean(0) - weights.mean(0)) < 5 * spread).all()
    assert example["train"].mean_log_likelihood(model, images) > weights.mean()


@pytest.mark.thorough
def test_each_step_draws_other_codes_and_pixels_from_the_streams_of_the_model(example, model):
    optimizer = liftnn.Optimizer(model, example["train"].optax.sgd(0.0))
    pixels = np.full((4, 784), 128, np.uint8)
    losses = [float(example["train"].train_step(model, optimizer, pixels)) for _ in range(3)]
    assert len(set(losses)) == 3
    assert (int(model.rngs.codes.count), int(model.rngs.pixels.count)) == (3, 3)


def test_pixels_are_one_with_the_probability_of_their_brightness(example):
    pixels = np.tile(np.array([0, 51, 204, 255], np.uint8), (20_000, 1))
    means = example["train"].binarize(jax.random.key(0), pixels).mean(0)
    assert (float(means[0]), float(means[3])) == (0.0, 1.0)
    np.testing.assert_allclose(means[1:3], [0.2, 0.8], atol=0.01)


@pytest.mark.thorough
def test_interpolations_start_and_end_at_the_reconstructions(model, images):
    mixed = model.interpolate(images[:2], images[2:4], 5)
    np.testing.assert_allclose(mixed[:, 0], model.reconstruct(images[:2]), rtol=1e-5)
    np.testing.assert_allclose(mixed[:, -1], model.reconstruct(images[2:4]), rtol=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--latents", "0"], "argument --latents: '0' is not a whole number from 1 on"),
        (["--limit", "100"], "argument --batch-size: 128 is more than --limit 100"),
        (["--output", __file__], f"argument --output: cannot make the folder {__file__} (File exists)"),
    ],
)
def test_a_wrong_option_is_named_with_exit_code_2(options, message):
    result = run_here("vae", *options)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"train.py: error: {message}"
