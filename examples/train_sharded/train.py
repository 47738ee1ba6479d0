"""Trains a decoder on a mesh of devices and processes; killed and started again, it goes on where it was.

python train.py                            one process, with eight devices if there is no accelerator
python train.py --processes 4 --devices 2  four processes on this machine
srun python train.py --cluster             one process of those that a cluster starts
"""

import argparse
import sys
import time

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import liftnn as nnx
import plots
import processes
from data import Batches
from model import RULES, Config, Decoder
from options import parse_options


def make_mesh() -> jax.sharding.Mesh:
    """All devices: two for the parts of each matrix, two for the parts of the weights, the others for the batch."""
    count = jax.device_count()
    tensor = 2 if count % 2 == 0 else 1
    fsdp = 2 if count % 4 == 0 else 1
    shape = (count // (fsdp * tensor), fsdp, tensor)
    return jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def make(options: argparse.Namespace) -> tuple[Decoder, nnx.Optimizer]:
    """The model and its optimizer; they are made on the mesh, so no device ever holds the whole."""
    config = Config(options.layers, options.features, 4 * options.features)
    model = Decoder(config, nnx.Rngs(options.seed))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, options.learning_rate, options.steps // 10, options.steps
    )
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.1))
    return model, nnx.Optimizer(model, tx, wrt=nnx.Param)


def loss_fn(model: Decoder, tokens: jax.Array) -> jax.Array:
    """The mean cross-entropy of each next byte, in nats; tokens: int32[rows, length + 1]."""
    logits = model(tokens[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


@nnx.jit(donate_argnums=(0, 1))
def train_step(model: Decoder, optimizer: nnx.Optimizer, batch: jax.Array) -> jax.Array:
    """Updates the model with the mean gradient of all micro-batches; batch: int32[micro-batches, rows, length + 1]."""

    def accumulate(total: nnx.State, tokens: jax.Array) -> tuple[nnx.State, jax.Array]:
        loss, grads = nnx.value_and_grad(loss_fn)(model, tokens)
        return jax.tree.map(jnp.add, total, grads), loss

    zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
    total, losses = nnx.scan(accumulate, in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))(zeros, batch)
    optimizer.update(model, jax.tree.map(lambda x: x / len(batch), total))
    return losses.mean()


def train(options: argparse.Namespace) -> list[float]:
    """Trains from the last checkpoint on, or from the start; returns the loss of each step."""
    checkpoints = nnx.Checkpoints(options.output / "checkpoints", max_to_keep=2)
    losses: list[float] = []
    if checkpoints.steps():
        model, optimizer = nnx.abstract(lambda: make(options))
        losses = checkpoints.restore(model, optimizer).values["losses"]
        report(f"resumed after step {len(losses)}/{options.steps}")
    else:
        model, optimizer = nnx.make_sharded(lambda: make(options))
    nnx.check_replicas(model, optimizer)
    shape = (options.micro_batches, options.batch // options.micro_batches, options.length)
    batches = Batches(shape, options.seed)
    rows = NamedSharding(jax.sharding.get_mesh(), PartitionSpec(None, RULES["batch"]))
    with checkpoints:
        for step in range(len(losses), options.steps):
            start = time.perf_counter()
            losses.append(float(train_step(model, optimizer, batches.read(step, rows))))
            speed = options.batch * options.length / (time.perf_counter() - start)
            report(f"step {step + 1}/{options.steps}: loss {losses[-1]:.6f}, {speed:,.0f} bytes/s")
            if (step + 1) % options.save_every == 0:
                checkpoints.save(step + 1, model, optimizer, values={"losses": losses})
    return losses


def report(line: str) -> None:
    """Prints a line, in one of the processes."""
    if jax.process_index() == 0:
        print(line, flush=True)


def main() -> int:
    """Runs the example; returns its exit code."""
    options = parse_options()
    if options.processes > 1 and options.process is None:
        return processes.start(options.processes)
    processes.connect(options)
    mesh = make_mesh()
    sizes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    report(f"{jax.process_count()} processes, {jax.device_count()} devices: {sizes}")
    with nnx.axis_rules(RULES, mesh):
        losses = train(options)
    if jax.process_index() == 0:
        plots.draw_losses(losses, options.output / "losses.png")
        report(f"plot: {options.output / 'losses.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
