"""Trains a GPT on Python's standard library, and prints what it writes as it learns."""

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
import sampling
from model import Array, Config, Gpt
from options import parse_options
from progress import Bar
from resume import ResumeError, Run

VALIDATION_ROWS, VALIDATION_BATCHES = 32, 8


def make(options: argparse.Namespace) -> tuple[Gpt, nnx.Optimizer]:
    """The model and its optimizer: AdamW with a warm-up cosine schedule, after clipping."""
    sizes = len(data.ALPHABET), options.layers, options.features, options.heads
    model = Gpt(Config(*sizes, options.dropout, options.dtype), nnx.Rngs(options.seed))
    peak = options.learning_rate
    warm_up = max(1, options.steps // 20)
    decay_steps: Any = float(max(warm_up + 1, options.steps))  # with an int, the step is traced twice
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warm_up, decay_steps, peak / 20)
    adamw = optax.adamw(schedule, b2=0.99, weight_decay=options.weight_decay, mask=decays)
    tx = optax.chain(optax.clip_by_global_norm(options.clip), adamw)
    return model, nnx.Optimizer(model, tx, wrt=nnx.Param)


def decays(params: nnx.State) -> nnx.State:
    """Which weights decay: matrices do, biases and the scales of norms do not.

    A Stack adds an axis to each of its weights, so that their names tell, and not the number of axes.
    """
    return params.map(lambda path, _: path[-1] in ("kernel", "embedding"))


def loss_fn(model: Gpt, tokens: Array) -> jax.Array:
    """The mean cross-entropy of each next character, in nats; tokens: int32[rows, context + 1]."""
    logits = model(tokens[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


@nnx.jit(donate_argnums=(0, 1))
def train_step(model: Gpt, optimizer: nnx.Optimizer, batch: Array) -> jax.Array:
    """Updates the model with the mean gradient of all micro-batches; batch: int32[micro-batches, rows, context + 1]."""

    def accumulate(total: nnx.State, tokens: Array) -> tuple[nnx.State, jax.Array]:
        loss, grads = nnx.value_and_grad(loss_fn)(model, tokens)
        return jax.tree.map(jnp.add, total, grads), loss

    zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
    total, losses = nnx.scan(accumulate, in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))(zeros, batch)
    optimizer.update(model, jax.tree.map(lambda x: x / len(batch), total))
    return losses.mean()


evaluate_step = nnx.jit(loss_fn)


def train_to(
    model: Gpt, optimizer: nnx.Optimizer, text: np.ndarray, steps: range, options: argparse.Namespace
) -> list[float]:
    """Takes the steps of a range; returns the loss of each."""
    rows = options.batch_size // options.micro_batches
    shape = (options.micro_batches, rows, options.context + 1)
    losses: list[jax.Array] = []
    label = f"steps {steps.start + 1} to {steps.stop} of {options.steps}:"
    bar = Bar(steps, label=label, size=options.batch_size * options.context, unit="characters")
    for step in bar:
        losses.append(train_step(model, optimizer, data.draw_windows(text, shape, (options.seed, step))))
        jax.block_until_ready(losses[-2:-1])  # JAX runs ahead, by one step here: the bar shows what is done
        if bar.due:
            bar.draw(f"loss {losses[-1]:.4f}")
    return [float(x) for x in losses]


def train(text: data.Text, options: argparse.Namespace) -> plots.History:
    """Trains as the options say; prints a line and a sample at each report."""
    model, optimizer = make(options)
    print(
        f"{nnx.count_params(model):,} parameters, {options.dtype}, {len(text.train):,} characters, "
        f"{len(text.validation):,} held out, seed {options.seed}, {jax.default_backend()}",
        flush=True,
    )
    history = plots.History()
    run = Run(options, (model, optimizer), history)
    done = run.load()
    if done:
        print(f"resumed after step {done}/{options.steps}", flush=True)
    trained = nnx.view(model, deterministic=True)  # the same weights without dropout
    count = VALIDATION_ROWS * VALIDATION_BATCHES
    held_out = data.even_windows(text.validation, count, options.context + 1)
    with run.checkpoints:
        for first in range(done, options.steps, options.every):
            start = time.perf_counter()
            steps = range(first, min(first + options.every, options.steps))
            history.train += train_to(model, optimizer, text.train, steps, options)
            parts = np.split(held_out, VALIDATION_BATCHES)
            history.validation.append(float(np.mean([evaluate_step(trained, part) for part in parts])))
            history.steps.append(steps.stop)
            run.save(steps.stop)
            print(
                f"step {steps.stop}/{options.steps}: train loss {np.mean(history.train[first:]):.4f}, "
                f"validation loss {history.validation[-1]:.4f}, {time.perf_counter() - start:.1f} s",
                flush=True,
            )
            seed = (options.seed, steps.stop)
            print_sample(
                sampling.write_text(model, options.prompt, options.context, seed, options.temperature)
            )
    return history


def print_sample(sample: str) -> None:
    """Prints what the model wrote, apart from the other lines."""
    print("\n".join(f"  | {line}".rstrip() for line in sample.strip("\n").split("\n")), flush=True)


def main() -> int:
    """Runs the example; returns its exit code."""
    options = parse_options()
    try:
        history = train(data.load(options.limit), options)
    except ResumeError as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    path = options.output / "losses.png"
    plots.draw_losses(history, path)
    print(f"plot: {path}")
    print(f"validation loss: {history.validation[-1]:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
