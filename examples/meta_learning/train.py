"""Learns to learn by MAML: the gradient goes through an inner loop that trains a copy of the model in place."""

import argparse
import functools
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import liftnn as nnx
import plots
from options import parse_options
from tasks import LARGEST_X, Points, Task, draw_tasks

INNER_RATE = 0.01
TEST_TASKS = 600
TEST_STEPS = 10


class Net(nnx.Module):
    """Two hidden layers, from x to y, both of shape (n, 1)."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.layers = nnx.Sequential(
            nnx.Linear(1, 40, rngs=rngs),
            nnx.relu,
            nnx.Linear(40, 40, rngs=rngs),
            nnx.relu,
            nnx.Linear(40, 1, rngs=rngs),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layers(x)


def loss_fn(model: Net, points: Points) -> jax.Array:
    """The mean squared error."""
    return ((model(points.x) - points.y) ** 2).mean()


def fit(learner: Net, optimizer: nnx.Optimizer, points: Points) -> None:
    """Takes one step on some points: an ordinary training step, in place."""
    optimizer.update(learner, nnx.grad(loss_fn)(learner, points))


def make_learner(model: Net) -> tuple[Net, nnx.Optimizer]:
    """A copy of the model, to be trained on one task, and its optimizer."""
    learner = nnx.clone(model)
    return learner, nnx.Optimizer(learner, optax.sgd(INNER_RATE), wrt=nnx.Param)


def adapt(model: Net, points: Points, steps: int) -> Net:
    """Returns a copy of the model that was trained on some points; gradients go through to the model."""
    learner, optimizer = make_learner(model)
    for _ in range(steps):
        fit(learner, optimizer, points)
    return learner


def meta_loss(model: Net, tasks: Task, inner_steps: int) -> jax.Array:
    """The mean error on new points of each task, after some steps on its own points."""

    def task_loss(model: Net, task: Task) -> jax.Array:
        return loss_fn(adapt(model, task.support, inner_steps), task.query)

    return nnx.vmap(task_loss, in_axes=(None, 0))(model, tasks).mean()


def update(
    model: Net, optimizer: nnx.Optimizer, rngs: nnx.Rngs, *, inner_steps: int, tasks: int, shots: int
) -> jax.Array:
    """Takes one step on new tasks; returns the loss. With no inner step this is ordinary training on all tasks."""
    batch = draw_tasks(rngs, tasks, shots)
    loss, grads = nnx.value_and_grad(meta_loss)(model, batch, inner_steps)
    optimizer.update(model, grads)
    return loss


def train(name: str, inner_steps: int, options: argparse.Namespace) -> Net:
    """Trains a model and prints a line now and then."""
    rngs = nnx.Rngs(options.seed)
    model = Net(rngs=rngs)
    optimizer = nnx.Optimizer(model, optax.adam(options.learning_rate), wrt=nnx.Param)
    calls = min(10, options.updates)
    updates = options.updates // calls
    one = functools.partial(update, inner_steps=inner_steps, tasks=options.tasks, shots=options.shots)
    make_updates = nnx.repeat(one, updates, donate_argnums=(0, 1, 2))
    for call in range(1, calls + 1):
        start = time.perf_counter()
        loss = make_updates(model, optimizer, rngs).mean()
        print(
            f"{name}: update {call * updates}/{calls * updates}, loss {loss:.3f}, "
            f"{time.perf_counter() - start:.1f} s",
            flush=True,
        )
    return model


@nnx.jit
def evaluate(model: Net, tasks: Task) -> jax.Array:
    """The mean error on new points after 0, 1, ... steps on each task."""

    def measure_and_fit(learner: Net, optimizer: nnx.Optimizer, task: Task) -> jax.Array:
        error = loss_fn(learner, task.query)
        fit(learner, optimizer, task.support)
        return error

    def errors_of(model: Net, task: Task) -> jax.Array:
        steps = nnx.scan(measure_and_fit, length=TEST_STEPS + 1, in_axes=None, out_axes=0)
        return steps(*make_learner(model), task)

    return nnx.vmap(errors_of, in_axes=(None, 0))(model, tasks).mean(axis=0)


def report(name: str, model: Net, tasks: Task, example: Task) -> plots.Result:
    """Prints the errors on new tasks, and returns what is drawn of the model."""
    errors = np.asarray(evaluate(model, tasks))
    steps = ", ".join(f"{errors[n]:.2f} after {n}" for n in plots.SHOWN_STEPS)
    print(f"{name}: error {steps} steps", flush=True)
    x = jnp.linspace(-LARGEST_X, LARGEST_X, 201)[:, None]
    curves = {n: np.asarray(adapt(model, example.support, n)(x)[:, 0]) for n in plots.SHOWN_STEPS}
    return plots.Result(name, errors, curves)


def main() -> int:
    """Runs the example; returns its exit code."""
    options = parse_options()
    print(
        f"{options.tasks} tasks of {options.shots} points an update, seed {options.seed}, "
        f"{jax.default_backend()}",
        flush=True,
    )
    tasks = draw_tasks(nnx.Rngs(options.seed + 1), TEST_TASKS, options.shots)
    example = jax.tree.map(lambda x: x[0], tasks)
    results = [
        report(name, train(name, inner_steps, options), tasks, example)
        for name, inner_steps in (("MAML", options.inner_steps), ("without meta-learning", 0))
    ]
    plots.draw(results, example, options.output / "sines.png")
    print(f"plot: {options.output / 'sines.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
