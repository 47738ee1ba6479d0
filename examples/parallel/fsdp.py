"""Fully sharded data parallelism: each device holds a part of each weight, and trains on a part of the batch.

The weights and the state of the optimizer are sharded along the axis of the devices. The compiler gathers a weight
where a layer needs it whole, and reduces its gradient. The model only declares the shardings; the task is to find the
nearest of 16 points.
"""

import devices  # sets flags of JAX, so it comes first

# isort: split
import jax
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec as P

import liftnn as nnx
import training
from command_line import parse_options

FEATURES, HIDDEN, CLASSES, BATCH = 64, 256, 16, 128


def dense(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Returns a dense layer whose weights are sharded along the axis of the devices."""
    kernel, bias = {"sharding": ("data", None)}, {"sharding": ("data",)}
    return nnx.Linear(inputs, outputs, kernel_metadata=kernel, bias_metadata=bias, rngs=rngs)


class Block(nnx.Module):
    """Two dense layers and the residual connection past them."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        sharded = {"sharding": ("data",)}
        self.norm = nnx.LayerNorm(FEATURES, scale_metadata=sharded, bias_metadata=sharded, rngs=rngs)
        self.up = dense(FEATURES, HIDDEN, rngs)
        self.down = dense(HIDDEN, FEATURES, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + by_rows(self.down(nnx.relu(by_rows(self.up(self.norm(x))))))


class Classifier(nnx.Module):
    """Residual blocks: points of shape (batch, features) to logits of shape (batch, classes)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.blocks = [Block(rngs) for _ in range(2)]
        self.head = dense(FEATURES, CLASSES, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = apply_block(block, x)
        return by_rows(self.head(x))


@nnx.remat
def apply_block(block: Block, x: jax.Array) -> jax.Array:
    """Applies a block, and again for the gradient: so the gathered weights are not kept from one to the other."""
    return block(x)


def by_rows(x: jax.Array) -> jax.Array:
    """Keeps activations sharded by rows, so that it is the weights that are gathered; does nothing without a mesh."""
    return nnx.with_logical_constraint(x, ("data", None))


def make(seed: int) -> tuple[Classifier, nnx.Optimizer]:
    """Returns the model and its optimizer."""
    model = Classifier(nnx.Rngs(seed))
    return model, nnx.Optimizer(model, optax.adamw(3e-3))


def draw_batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns points, and which of the fixed points is the nearest to each."""
    centers = np.random.default_rng(0).normal(size=(CLASSES, FEATURES))
    x = centers[rng.integers(CLASSES, size=BATCH)] + 2 * rng.normal(size=(BATCH, FEATURES))
    return x.astype(np.float32), ((x[:, None] - centers) ** 2).sum(-1).argmin(-1)


def loss_fn(model: Classifier, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


@nnx.jit(donate_argnums=(0, 1))
def train_step(model: Classifier, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
    """Updates model and optimizer in place, each Variable where it is; returns the loss."""
    loss, grads = nnx.value_and_grad(loss_fn)(model, x, y)
    optimizer.update(model, grads)
    return loss


def main() -> None:
    """Runs the example."""
    options = parse_options(__doc__)
    mesh = devices.make_mesh("data")
    sharding = NamedSharding(mesh, P("data"))
    with jax.set_mesh(mesh):
        model, optimizer = nnx.make_sharded(lambda: make(options.seed))
        training.run(train_step, model, optimizer, draw_batch, sharding, options)


if __name__ == "__main__":
    main()
