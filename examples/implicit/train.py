"""Trains a deep equilibrium model: a solver of another library finds the output of a layer with state."""

import argparse
import functools
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import liftnn as nnx
import plots
from model import Classifier
from options import parse_options
from solvers import Find, fixed_point, iterate

TEST_POINTS = 2000
DEPTHS = (10, 40, 160)  # steps of the unrolled models whose memory is compared


def draw_spirals(rngs: nnx.Rngs, count: int) -> tuple[jax.Array, jax.Array]:
    """Points on two spirals that wind around each other, of shape (n, 2), and which is whose, of shape (n,)."""
    labels = rngs.bernoulli(0.5, (count,))
    radius = jnp.sqrt(rngs.uniform((count,)))
    angle = 3 * jnp.pi * radius + jnp.pi * labels
    points = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)]) + 0.02 * rngs.normal((2, count))
    return points.T, labels


def loss_fn(model: Classifier, x: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy."""
    return optax.sigmoid_binary_cross_entropy(model(x), labels).mean()


def train_step(model: Classifier, optimizer: nnx.Optimizer, x: jax.Array, labels: jax.Array) -> jax.Array:
    """Takes one step; returns the loss."""
    loss, grads = nnx.value_and_grad(loss_fn)(model, x, labels)
    optimizer.update(model, grads)
    return loss


def train(model: Classifier, rngs: nnx.Rngs, options: argparse.Namespace) -> None:
    """Trains the model and prints a line now and then."""
    schedule = optax.linear_schedule(options.learning_rate, 0.0, options.updates)
    optimizer = nnx.Optimizer(model, optax.adam(schedule), wrt=nnx.Param)

    def update(model: Classifier, optimizer: nnx.Optimizer, rngs: nnx.Rngs) -> tuple[jax.Array, jax.Array]:
        loss = train_step(model, optimizer, *draw_spirals(rngs, options.batch_size))
        return loss, model.equilibrium.steps.value

    calls = min(10, options.updates)
    updates = options.updates // calls
    make_updates = nnx.repeat(update, updates, donate_argnums=(0, 1, 2))
    for call in range(1, calls + 1):
        start = time.perf_counter()
        losses, steps = make_updates(model, optimizer, rngs)
        print(
            f"update {call * updates}/{calls * updates}: loss {losses.mean():.4f}, "
            f"{steps.mean():.0f} steps to the fixed point, {time.perf_counter() - start:.1f} s",
            flush=True,
        )


def temporary_bytes(find: Callable[..., Find], options: argparse.Namespace) -> int:
    """The memory that a compiled training step needs beside its arguments and results."""

    def make() -> tuple[Classifier, nnx.Optimizer]:
        model = Classifier(options.width, find=find, rngs=nnx.Rngs(0))
        return model, nnx.Optimizer(model, optax.adam(options.learning_rate), wrt=nnx.Param)

    model, optimizer = nnx.eval_shape(make)
    x, labels = draw_spirals(nnx.Rngs(0), options.batch_size)
    compiled = nnx.jit(train_step).lower(model, optimizer, x, labels).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def compare_memory(options: argparse.Namespace) -> dict[int | None, int]:
    """Prints and returns the memory of a training step by the steps unrolled; None is the implicit gradient."""
    memory = {None: temporary_bytes(fixed_point, options)}
    memory |= {n: temporary_bytes(functools.partial(iterate, steps=n), options) for n in DEPTHS}
    unrolled = ", ".join(f"{memory[n] / 1e6:.2f} MB through {n}" for n in DEPTHS)
    print(f"memory of a training step: {memory[None] / 1e6:.2f} MB implicit, {unrolled} steps", flush=True)
    return memory


def main() -> int:
    """Runs the example; returns its exit code."""
    options = parse_options()
    rngs = nnx.Rngs(options.seed)
    model = Classifier(options.width, rngs=rngs)
    count = nnx.count_params(model)
    print(f"{count:,} parameters, seed {options.seed}, {jax.default_backend()}", flush=True)
    train(model, rngs, options)
    model.eval()
    predict = nnx.jit(model)
    x, labels = draw_spirals(rngs, TEST_POINTS)
    accuracy = float(((predict(x) > 0) == labels).mean())
    memory = compare_memory(options)
    plots.draw(predict, np.asarray(x), np.asarray(labels), memory, options.output / "spirals.png")
    print(f"plot: {options.output / 'spirals.png'}")
    print(f"accuracy on {TEST_POINTS:,} new points: {accuracy:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
