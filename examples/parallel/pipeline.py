"""Pipeline parallelism: each device holds some of the layers, and micro-batches move from device to device.

In each tick all devices apply their layers, each to another micro-batch, and pass the result to the next device. With m
micro-batches and n devices a pass takes m + n - 1 ticks, and what a device computes in n - 1 of them is not used. So m
should be several times n. The gradient goes through the same ticks backwards. The task is to tell two spirals apart.
"""

import devices  # sets flags of JAX, so it comes first

# isort: split
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import liftnn as nnx
import training
from command_line import parse_options

FEATURES, HIDDEN, BLOCKS, MICRO_BATCHES, MICRO_SIZE = 32, 64, 16, 16, 32
SPECS = nnx.StateSharding({nnx.PathContains("blocks"): P("stage"), ...: P()})


def dense(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Returns a dense layer that declares its axes, so that `vmap` can add the name of another one."""
    kernel, bias = {"sharding": (None, None)}, {"sharding": (None,)}
    return nnx.Linear(inputs, outputs, kernel_metadata=kernel, bias_metadata=bias, rngs=rngs)


class Block(nnx.Module):
    """Two dense layers and the residual connection past them."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.up = dense(FEATURES, HIDDEN, rngs)
        self.down = dense(HIDDEN, FEATURES, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.down(nnx.gelu(self.up(nnx.standardize(x)))) / BLOCKS**0.5


@functools.partial(nnx.scan, in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
def apply_blocks(block: Block, x: jax.Array) -> jax.Array:
    """Applies stacked blocks one after the other: all of them, or those of one device."""
    return block(x)


class Classifier(nnx.Module):
    """Points of shape (..., 2) to logits of shape (..., 2). The blocks are stacked along the axis of the stages."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        stacked = {nnx.PARTITION_NAME: "stage"}
        self.embed = nnx.Linear(2, FEATURES, rngs=rngs)
        self.blocks = nnx.vmap(Block, transform_metadata=stacked)(rngs.fork(split=BLOCKS))
        self.head = nnx.Linear(FEATURES, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(apply_blocks(self.blocks, self.embed(x)))


def make(seed: int) -> tuple[Classifier, nnx.Optimizer]:
    """Returns the model and its optimizer."""
    model = Classifier(nnx.Rngs(seed))
    return model, nnx.Optimizer(model, optax.adamw(1e-2))


def draw_batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns points in micro-batches, and on which of the two spirals each lies."""
    shape = (MICRO_BATCHES, MICRO_SIZE)
    spiral, radius = rng.integers(2, size=shape), rng.uniform(0.2, 2, size=shape)
    angle = 3 * radius + np.pi * spiral
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return points.astype(np.float32), spiral


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def loss_fn(model: Classifier, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the loss on one device."""
    return cross_entropy(model(x), y)


def pipeline_loss(model: Classifier, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the same loss under `shard_map`, where `model.blocks` are the blocks of one stage."""
    stages, stage = jax.lax.axis_size("stage"), jax.lax.axis_index("stage")
    to_next = [(i, i + 1) for i in range(stages - 1)]

    def tick(blocks: Block, previous: jax.Array, fresh: jax.Array) -> tuple[jax.Array, jax.Array]:
        received = jax.lax.ppermute(previous, "stage", to_next)
        output = apply_blocks(blocks, jnp.where(stage == 0, fresh, received))
        return output, output

    # Only the first stage uses the inputs. Without this their gradient would be summed over the stages in each tick.
    x = jax.lax.pcast(x, "stage", to="varying")
    # The first stage takes a new micro-batch in each tick, and zeros while the others finish.
    fresh = jnp.pad(model.embed(x), ((0, stages - 1), (0, 0), (0, 0)))
    run = nnx.scan(tick, in_axes=(None, nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    _, outputs = run(model.blocks, jnp.zeros_like(fresh[0]), fresh)
    loss = cross_entropy(model.head(outputs[stages - 1 :]), y)
    return jax.lax.psum(jnp.where(stage == stages - 1, loss, 0), "stage")  # only the last stage has outputs


def make_train_step(mesh: Mesh) -> Any:
    """Returns the compiled step, which updates model and optimizer in place and returns the loss."""
    sharded_loss = nnx.shard_map(pipeline_loss, mesh=mesh, in_specs=(SPECS, P(), P()), out_specs=P())

    @nnx.jit(donate_argnums=(0, 1))
    def train_step(model: Classifier, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(sharded_loss)(model, x, y)
        optimizer.update(model, grads)
        return loss

    return train_step


def main() -> None:
    """Runs the example."""
    options = parse_options(__doc__)
    mesh = devices.make_mesh("stage")
    sharding = NamedSharding(mesh, P())
    model, optimizer = nnx.make_sharded(lambda: make(options.seed), mesh)
    train_step = make_train_step(mesh)
    training.run(train_step, model, optimizer, draw_batch, sharding, options)


if __name__ == "__main__":
    main()
