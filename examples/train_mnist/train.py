"""Trains a network on MNIST: stateful modules go straight through liftnn's jit and value_and_grad."""

import argparse
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
import optax

import data
import liftnn as nnx
import plots
from models import MODELS, Array, Classifier
from options import parse_options
from progress import Bar
from resume import ResumeError, Run

EVAL_BATCH = 1000


def loss_fn(model: Classifier, images: Array, labels: Array, smoothing: float) -> tuple[jax.Array, jax.Array]:
    """The mean cross-entropy with labels of which a part stands for all digits alike, and the logits beside it."""
    logits = model(images)
    of_label = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    of_all = -jax.nn.log_softmax(logits).mean(axis=-1)
    return ((1 - smoothing) * of_label + smoothing * of_all).mean(), logits


class Training(NamedTuple):
    """All that a training step updates.

    Args:
      model: the network.
      optimizer: its optimizer.
      metrics: of the epoch.
      ema: a moving average of the network's weights and batch statistics, or None.
    """

    model: Classifier
    optimizer: nnx.Optimizer
    metrics: nnx.MultiMetric
    ema: nnx.EMA | None


@nnx.jit(donate_argnums=0, static_argnames="smoothing")
def train_step(training: Training, images: Array, labels: Array, *, smoothing: float = 0.0) -> jax.Array:
    """Updates the weights, the batch statistics, the optimizer and the metrics in place; returns the loss."""
    model, optimizer, metrics, ema = training
    (loss, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model, images, labels, smoothing)
    optimizer.update(model, grads)
    metrics.update(loss=loss, logits=logits, labels=labels)
    if ema is not None:
        ema.update(model)
    return loss


@nnx.jit
def predict(model: Classifier, images: Array) -> jax.Array:
    """The likeliest digit of each image."""
    return model(images).argmax(axis=-1)


def train_epoch(
    training: Training, digits: data.Digits, batches: np.ndarray, smoothing: float, label: str
) -> list[jax.Array]:
    """Takes one step for each row of `batches`, which holds indices of images; returns the losses."""
    training.model.train()
    training.metrics.reset()
    losses: list[jax.Array] = []
    bar = Bar(list(batches), label=label, size=batches.shape[1], unit="images")
    for batch in bar:
        images, labels = digits.images[batch], digits.labels[batch]
        losses.append(train_step(training, images, labels, smoothing=smoothing))
        if bar.due:
            bar.draw(f"loss {training.metrics.compute()['loss']:.4f}")
    return losses


def evaluate(model: Classifier, digits: data.Digits) -> np.ndarray:
    """Returns the prediction for every image."""
    model.eval()
    starts = range(0, len(digits.images), EVAL_BATCH)
    return np.concatenate([predict(model, digits.images[i : i + EVAL_BATCH]) for i in starts])


def train(model: Classifier, mnist: data.Mnist, options: argparse.Namespace) -> plots.History:
    """Trains the model as the options say and prints a line an epoch."""
    count = len(mnist.train.labels)
    steps = count // options.batch_size
    total = steps * options.epochs
    schedule = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, total // 10, total)
    optimizer = nnx.Optimizer(model, optax.adamw(schedule, weight_decay=options.weight_decay), wrt=nnx.Param)
    metrics = nnx.MultiMetric(loss=nnx.Average("loss"), accuracy=nnx.Accuracy())
    ema = nnx.EMA(model, options.ema) if options.ema else None
    tested = ema.apply_to(model) if ema else model  # follows the average
    training = Training(model, optimizer, metrics, ema)
    shuffle = np.random.default_rng(options.seed)
    history = plots.History(mnist.test.labels)
    run = Run(options, training, shuffle, history)
    done = run.load()
    if done:
        print(f"resumed after epoch {done}/{options.epochs}", flush=True)
    with run.checkpoints:
        for epoch in range(done + 1, options.epochs + 1):
            start = time.perf_counter()
            label = f"epoch {epoch}/{options.epochs}"
            batches = shuffle.permutation(count)[: steps * options.batch_size].reshape(steps, -1)
            losses = train_epoch(training, mnist.train, batches, options.label_smoothing, label)
            seen = metrics.compute()
            history.add(np.asarray(losses), float(seen["accuracy"]), evaluate(tested, mnist.test))
            run.save(epoch)
            print(
                f"{label}: train loss {seen['loss']:.4f}, train accuracy {seen['accuracy']:.4f}, "
                f"test accuracy {history.test_accuracy[-1]:.4f}, {time.perf_counter() - start:.1f} s",
                flush=True,
            )
    return history


def main() -> int:
    """Runs the example; returns its exit code."""
    options = parse_options()
    try:
        mnist = data.load(options.data, limit=options.limit)
    except data.DataError as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    model = MODELS[options.model](rngs=nnx.Rngs(options.seed))
    weights = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    print(
        f"{options.model} with {weights:,} parameters on {len(mnist.train.labels):,} images, "
        f"seed {options.seed}, {jax.default_backend()}",
        flush=True,
    )
    try:
        history = train(model, mnist, options)
    except ResumeError as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    plots.draw_curves(history, options.output / "curves.png")
    plots.draw_mistakes(mnist.test, history.predictions, options.output / "mistakes.png")
    print(f"plots: {options.output / 'curves.png'}, {options.output / 'mistakes.png'}")
    print(f"test accuracy: {history.test_accuracy[-1]:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
