"""What the MNIST example trains with: distorted images, and averaged weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.ndimage

import liftnn
from tests.examples import example


@pytest.fixture
def load():
    """Import a file of the example by name."""
    with example.imported("train_mnist") as load:
        yield load


def digits(n: int) -> np.ndarray:
    """Smooth random images with an empty border, of shape (n, 28, 28, 1), from 0 to 1."""
    inner = np.random.default_rng(0).uniform(size=(n, 18, 18)).astype(np.float32)
    return np.pad(inner, ((0, 0), (5, 5), (5, 5)))[..., None]


@pytest.mark.parametrize(
    "affine",
    [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        [[1.0, 0.0, 1.5], [0.0, 1.0, -0.25]],
        [[0.96, -0.28, 0.5], [0.28, 0.96, 0.0]],
        [[1.1, 0.05, 0.0], [-0.1, 0.9, 0.7]],
    ],
    ids=["identity", "shift", "rotation", "scale and shear"],
)
def test_an_image_is_resampled_as_scipy_does(load, affine):
    image, affine = digits(1)[0], np.array(affine, np.float32)
    centre = np.array([13.5, 13.5])
    offset = centre - affine[:, :2] @ centre + affine[:, 2]
    expected = scipy.ndimage.affine_transform(image[..., 0], affine[:, :2], offset, order=1)

    result = load("augment").resample(jnp.asarray(image), jnp.asarray(affine))

    assert result.shape == image.shape
    np.testing.assert_allclose(result[..., 0], expected, atol=1e-5)


def test_each_image_and_each_call_is_distorted_otherwise_in_training_and_not_at_all_in_evaluation(load):
    augment = load("augment").Augment(0.2, 0.15, 2.0, rngs=liftnn.Rngs(0))
    images = jnp.asarray(np.repeat(digits(1), 2, axis=0))

    first, second = augment(images), augment(images)

    for one, other in ((first[0], first[1]), (first[0], second[0]), (first[0], images[0])):
        assert not np.allclose(one, other)
    assert augment.eval()(images) is images


def test_amounts_are_at_most_what_was_asked_for(load):
    augment = load("augment").Augment(0.2, 0.15, 2.0, rngs=liftnn.Rngs(0))

    maps = np.asarray(augment.draw_maps(1000))

    assert maps.shape == (1000, 2, 3)
    assert 1.9 < np.abs(maps[:, :, 2]).max() <= 2.0
    widest = 1.15 + 0.15  # a row of 1 + scale and shear, times a rotation
    assert np.abs(maps[:, :, :2]).sum(axis=2).max() <= widest * (np.cos(0.2) + np.sin(0.2))
    still = load("augment").Augment(0.0, 0.0, 0.0, rngs=liftnn.Rngs(0)).draw_maps(3)
    np.testing.assert_array_equal(still, np.tile(np.eye(2, 3, dtype=np.float32), (3, 1, 1)))


def test_the_tested_model_has_the_average_of_the_weights_of_all_steps(load):
    module, decay = load("train"), 0.5
    model = load("models").Mlp(rngs=liftnn.Rngs(0))
    metrics = liftnn.MultiMetric(loss=liftnn.Average("loss"), accuracy=liftnn.Accuracy())
    ema = liftnn.EMA(model, decay)
    tested = ema.apply_to(model)
    training = module.Training(model, liftnn.Optimizer(model, optax.sgd(0.1)), metrics, ema)
    images, labels = np.uint8(255 * digits(8)), np.arange(8, dtype=np.int32)
    expected = arrays(model)

    for _ in range(3):
        module.train_step(training, images, labels)
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, arrays(model), strict=True)]

    for result, x in zip(arrays(tested), expected, strict=True):
        np.testing.assert_allclose(result, x, rtol=1e-5, atol=1e-6)
    assert not np.allclose(tested.layers[0].kernel.value, model.layers[0].kernel.value)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_with_smoothed_labels(load, smoothing):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(8, 10)), jnp.float32)
    labels = jnp.arange(8)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, 10), smoothing)

    loss, _ = load("train").loss_fn(lambda images: images, logits, labels, smoothing)

    np.testing.assert_allclose(loss, optax.softmax_cross_entropy(logits, targets).mean(), rtol=1e-6)


def arrays(model) -> list[np.ndarray]:
    """Return copies of the weights."""
    return [np.array(x) for x in jax.tree.leaves(liftnn.state(model, liftnn.Param))]
