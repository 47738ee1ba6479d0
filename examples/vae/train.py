"""Trains a variational autoencoder on MNIST; the model draws its codes from a random stream of its own.

The images are binary: each time that one is seen, a pixel is 1 with the probability of its brightness. So the bound is
in nats, and comparable with what is published for the dynamically binarized MNIST.
"""

import argparse
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import data
import liftnn as nnx
import plots
from model import Array, Vae
from options import parse_options
from progress import Bar

CODES = 100
"""The codes drawn for each image to estimate its likelihood."""
EVAL_BATCH = 1000


def loss_fn(model: Vae, images: jax.Array) -> jax.Array:
    """Minus the mean evidence lower bound, in nats."""
    return -model.elbo(images).mean()


@nnx.jit(donate_argnums=(0, 1))
def train_step(model: Vae, optimizer: nnx.Optimizer, pixels: Array) -> jax.Array:
    """Updates the model in place, also its random stream; returns the loss.

    Args:
      model: the autoencoder.
      optimizer: its optimizer.
      pixels: of shape (n, 784), uint8; they are made binary by the stream `pixels`.
    """
    images = binarize(model.rngs.pixels(), pixels)
    loss, grads = nnx.value_and_grad(loss_fn)(model, images)
    optimizer.update(model, grads)
    return loss


def binarize(key: jax.Array, pixels: Array) -> jax.Array:
    """Returns 1 with the probability of a pixel's brightness, else 0, as floats."""
    return (jax.random.uniform(key, pixels.shape) * 255 < pixels).astype(jnp.float32)


@nnx.jit
def mean_elbo(model: Vae, images: jax.Array) -> jax.Array:
    """The mean evidence lower bound of some images."""
    return model.elbo(images).mean()


@nnx.jit
def mean_log_likelihood(model: Vae, images: jax.Array) -> jax.Array:
    """An estimate of the mean log-likelihood of some images, by importance sampling with many codes for each."""
    draw = nnx.vmap(lambda _: model.log_weight(images))  # each draws codes of its own from the stream
    weights = draw(jnp.arange(CODES))
    return (jax.nn.logsumexp(weights, axis=0) - jnp.log(CODES)).mean()


def train(
    model: Vae, images: np.ndarray, test: list[jax.Array], options: argparse.Namespace
) -> plots.History:
    """Trains the model and prints a line an epoch; returns the bounds of each epoch.

    Args:
      model: the autoencoder.
      images: the training images, of shape (n, 784), uint8.
      test: the binary test images, in batches.
      options: of the command line.
    """
    steps = len(images) // options.batch_size
    decay_steps: Any = float(options.epochs * steps)  # with an int, the step is traced twice
    schedule = optax.cosine_decay_schedule(options.learning_rate, decay_steps)
    optimizer = nnx.Optimizer(model, optax.adam(schedule), wrt=nnx.Param)
    shuffle = np.random.default_rng(options.seed)
    history = plots.History([], [])
    for epoch in range(1, options.epochs + 1):
        start = time.perf_counter()
        label = f"epoch {epoch}/{options.epochs}"
        order = shuffle.permutation(len(images))[: steps * options.batch_size].reshape(steps, -1)
        losses: list[jax.Array] = []
        bar = Bar(list(order), label=label, size=options.batch_size, unit="images")
        for batch in bar:
            losses.append(train_step(model, optimizer, images[batch]))
            if bar.due:
                bar.draw(f"ELBO {-float(losses[-1]):.2f}")
        history.train.append(-float(np.mean(losses)))
        history.test.append(float(np.mean([mean_elbo(model, x) for x in test])))
        print(
            f"{label}: train ELBO {history.train[-1]:.2f}, test ELBO {history.test[-1]:.2f}, "
            f"{time.perf_counter() - start:.1f} s",
            flush=True,
        )
    return history


def main() -> int:
    """Runs the example; returns its exit code."""
    start = time.perf_counter()
    options = parse_options()
    try:
        mnist = data.load(options.data, limit=options.limit)
    except data.DataError as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    streams = nnx.Rngs(options.seed, codes=options.seed + 1, pixels=options.seed + 2)
    model = Vae(options.hidden, options.latents, rngs=streams)
    print(
        f"{nnx.count_params(model):,} parameters, {options.latents} latents, {options.limit:,} images, "
        f"seed {options.seed}, {jax.default_backend()}",
        flush=True,
    )
    images, unseen = (x.images.reshape(len(x.images), -1) for x in mnist)
    unseen = binarize(jax.random.key(0), unseen)  # the same pixels in each epoch
    test = [unseen[i : i + EVAL_BATCH] for i in range(0, len(unseen), EVAL_BATCH)]
    history = train(model, images, test, options)
    likelihood = float(mean_log_likelihood(model, test[0]))
    plots.draw_bounds(history, options.output / "elbo.png")
    plots.draw_digits(model, unseen, mnist.test.labels, options.output / "digits.png")
    print(f"pictures: {options.output / 'elbo.png'}, {options.output / 'digits.png'}")
    print(f"test ELBO: {history.test[-1]:.2f} nats")
    print(
        f"log-likelihood of {EVAL_BATCH:,} test images, estimated with {CODES} codes each: {likelihood:.2f} nats"
    )
    print(f"finished in {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
