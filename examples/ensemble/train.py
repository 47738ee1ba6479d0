"""Trains sixteen networks on MNIST in one compiled program, and measures how well their mean is calibrated.

Everything is written for one network. `vmap` makes it many, each with its own weights, optimizer, learning rate and
random streams.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import data
import liftnn as nnx
import plots
from model import Array, Mlp, create
from options import parse_options
from progress import Bar
from scores import report

EVAL_BATCH = 1000
TIMED_STEPS = 20


def loss_fn(model: Mlp, images: Array, labels: Array) -> jax.Array:
    """The mean cross-entropy of one network."""
    return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()


def step(model: Mlp, optimizer: nnx.Optimizer, images: Array, labels: Array) -> jax.Array:
    """Updates one network and its optimizer in place; returns the loss."""
    loss, grads = nnx.value_and_grad(loss_fn)(model, images, labels)
    optimizer.update(model, grads)
    return loss


single_step = nnx.jit(step, donate_argnums=(0, 1))
train_step = nnx.jit(nnx.vmap(step, in_axes=(0, 0, None, None)), donate_argnums=(0, 1))


@nnx.jit
@functools.partial(nnx.vmap, in_axes=(0, None))
def predict(model: Mlp, images: Array) -> jax.Array:
    """The probabilities of each member, of shape (members, images, 10)."""
    return nnx.softmax(model(images))


def create_all(options: argparse.Namespace, steps: int) -> tuple[Mlp, nnx.Optimizer, np.ndarray]:
    """Returns all members as one module whose Variables are stacked, likewise their optimizers; and learning rates."""
    seeds = jnp.arange(options.members, dtype=jnp.uint32) + options.seed
    low, high = options.learning_rates
    rates = np.geomspace(low, high, options.members, dtype=np.float32)
    models, optimizers = nnx.jit(nnx.vmap(functools.partial(create, steps=float(steps))))(seeds, rates)
    return models, optimizers, rates


def evaluate(models: Mlp, images: np.ndarray) -> np.ndarray:
    """Returns the probabilities of each member, of shape (members, images, 10)."""
    models.eval()
    starts = range(0, len(images), EVAL_BATCH)
    parts = [np.asarray(predict(models, images[i : i + EVAL_BATCH])) for i in starts]
    models.train()
    return np.concatenate(parts, axis=1)


def train(models: Mlp, optimizers: nnx.Optimizer, mnist: data.Mnist, options: argparse.Namespace) -> None:
    """Trains all members on the same batches and prints a line an epoch."""
    count = len(mnist.train.labels)
    steps = count // options.batch_size
    shuffle = np.random.default_rng(options.seed)
    for epoch in range(1, options.epochs + 1):
        start = time.perf_counter()
        label = f"epoch {epoch}/{options.epochs}"
        order = shuffle.permutation(count)[: steps * options.batch_size].reshape(steps, -1)
        losses: list[jax.Array] = []
        bar = Bar(list(order), label=label, size=options.batch_size, unit="images")
        for batch in bar:
            losses.append(
                train_step(models, optimizers, mnist.train.images[batch], mnist.train.labels[batch])
            )
            if bar.due:
                bar.draw(f"loss {losses[-1].mean():.4f}")
        means = np.mean(losses, axis=0)
        print(
            f"{label}: train loss {means.mean():.4f} ({means.min():.4f} to {means.max():.4f}), "
            f"{time.perf_counter() - start:.1f} s",
            flush=True,
        )


def seconds_a_step(run: Callable[..., jax.Array], *arguments: object) -> float:
    """Returns the shortest time of a step among some, the first of which compiles."""
    times: list[float] = []
    for _ in range(TIMED_STEPS + 1):
        start = time.perf_counter()
        run(*arguments).block_until_ready()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def compare_times(options: argparse.Namespace, mnist: data.Mnist) -> tuple[float, float]:
    """Returns the seconds that a step of all members takes, and those that a step of one takes."""
    batch = jax.device_put(
        (mnist.train.images[: options.batch_size], mnist.train.labels[: options.batch_size])
    )
    models, optimizers, rates = create_all(options, TIMED_STEPS)
    together = seconds_a_step(train_step, models, optimizers, *batch)
    return together, seconds_a_step(single_step, *create(options.seed, rates[0], float(TIMED_STEPS)), *batch)


def main() -> int:
    """Runs the example; returns its exit code."""
    start = time.perf_counter()
    options = parse_options()
    try:
        mnist = data.load(options.data, limit=options.limit)
    except data.DataError as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    models, optimizers, rates = create_all(options, options.epochs * (options.limit // options.batch_size))
    weights = nnx.count_params(models) // options.members
    print(
        f"{options.members} models with {weights:,} parameters each on {options.limit:,} images, "
        f"seeds from {options.seed}, {jax.default_backend()}",
        flush=True,
    )
    train(models, optimizers, mnist, options)
    clean = evaluate(models, mnist.test.images)
    noisy = evaluate(models, data.add_noise(mnist.test.images, options.noise, options.seed))
    report("test digits", clean, mnist.test.labels)
    report(f"test digits with noise of {options.noise:g}", noisy, mnist.test.labels)
    plots.draw(rates, clean, noisy, mnist.test.labels, options.output / "calibration.png")
    together, alone = compare_times(options, mnist)
    print(
        f"one step: {options.members} models {1e3 * together:.1f} ms, one model {1e3 * alone:.1f} ms, "
        f"ratio {together / alone:.1f}"
    )
    print(f"plot: {options.output / 'calibration.png'}")
    print(f"finished in {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
