"""Expert parallelism: each device holds some of the experts, and tokens travel to the devices of their experts.

A router chooses two of eight experts for each token. Each expert takes a limited number of tokens from a group of them,
its capacity, so all shapes are known; beyond it a token has only the residual connection. Groups and experts are spread
over the same devices, and `all_to_all` exchanges what each device has for each expert. In the task each token comes
from one of eight clusters, and each cluster has a linear map of its own to learn.
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

FEATURES, HIDDEN, EXPERTS, CHOICES, GROUPS, TOKENS = 16, 32, 8, 2, 8, 64
CAPACITY = TOKENS * CHOICES * 5 // (EXPERTS * 4)  # a quarter more than if all experts got as many
SPECS = nnx.StateSharding({nnx.PathContains("experts"): P("expert"), ...: P()})


class Expert(nnx.Module):
    """Two dense layers. They declare their axes, so that `vmap` can add the name of the axis of the experts."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        axes = {"sharding": (None, None)}
        self.up = nnx.Linear(FEATURES, HIDDEN, use_bias=False, kernel_metadata=axes, rngs=rngs)
        self.down = nnx.Linear(HIDDEN, FEATURES, use_bias=False, kernel_metadata=axes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(nnx.gelu(self.up(x)))


class MixtureOfExperts(nnx.Module):
    """Sends each token to two experts: tokens of shape (groups, tokens, features) to the same shape.

    With `axis_name` it is for `shard_map`: each device has its groups and its experts along that axis of the mesh.
    """

    def __init__(self, rngs: nnx.Rngs, axis_name: str | None) -> None:
        stacked = {nnx.PARTITION_NAME: "expert"}
        self.axis_name = axis_name
        self.router = nnx.Linear(FEATURES, EXPERTS, use_bias=False, rngs=rngs)
        self.experts = nnx.vmap(Expert, transform_metadata=stacked)(rngs.fork(split=EXPERTS))

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        probabilities = nnx.softmax(self.router(x))
        dispatch, combine = route(probabilities)
        inputs = jnp.einsum("gtec,gtf->gecf", dispatch, x)
        if self.axis_name:  # all experts of my groups -> all groups of my experts
            inputs = jax.lax.all_to_all(inputs, self.axis_name, split_axis=1, concat_axis=0, tiled=True)
        outputs = apply_experts(self.experts, inputs)
        if self.axis_name:  # and back
            outputs = jax.lax.all_to_all(outputs, self.axis_name, split_axis=0, concat_axis=1, tiled=True)
        return x + jnp.einsum("gtec,gecf->gtf", combine, outputs), imbalance(probabilities)


@functools.partial(nnx.vmap, in_axes=(0, 1), out_axes=1)
def apply_experts(expert: Expert, x: jax.Array) -> jax.Array:
    """Applies each expert to its tokens: (groups, experts, capacity, features) to the same shape."""
    return expert(x)


def route(probabilities: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns where each token goes, 0 or 1, and the weights of outputs: (groups, tokens, experts, capacity) each."""
    groups, tokens = probabilities.shape[:2]
    weights, chosen = jax.lax.top_k(probabilities, CHOICES)
    weights = weights / weights.sum(-1, keepdims=True)
    chosen = jax.nn.one_hot(chosen, EXPERTS)  # (groups, tokens, choices, experts)
    # The queue of each expert: the first choices of all tokens, then the second ones.
    queue = chosen.swapaxes(1, 2).reshape(groups, -1, EXPERTS)
    ahead = (queue.cumsum(1) - queue).reshape(groups, CHOICES, tokens, EXPERTS).swapaxes(1, 2)
    taken = chosen[..., None] * jax.nn.one_hot(ahead.astype(int), CAPACITY)  # zeros beyond the capacity
    return taken.sum(2), jnp.einsum("gtk,gtkec->gtec", weights, taken)


def imbalance(probabilities: jax.Array) -> jax.Array:
    """Returns the loss of Switch Transformers, which is 1, its least, if all experts get as many tokens."""
    first = jax.nn.one_hot(probabilities.argmax(-1), EXPERTS).mean(1)
    return EXPERTS * (first * probabilities.mean(1)).sum(-1).mean()


def make(seed: int, axis_name: str | None = "expert") -> tuple[MixtureOfExperts, nnx.Optimizer]:
    """Returns the model and its optimizer."""
    model = MixtureOfExperts(nnx.Rngs(seed), axis_name)
    return model, nnx.Optimizer(model, optax.adamw(1e-2))


def draw_batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens, and the image of each under the linear map of its cluster."""
    fixed = np.random.default_rng(0)
    centers = 2 * fixed.normal(size=(EXPERTS, FEATURES))
    maps = fixed.normal(size=(EXPERTS, FEATURES, FEATURES)) / FEATURES**0.5
    cluster = rng.integers(EXPERTS, size=(GROUPS, TOKENS))
    x = centers[cluster] + rng.normal(size=(GROUPS, TOKENS, FEATURES))
    return x.astype(np.float32), np.einsum("gtf,gtfh->gth", x, maps[cluster]).astype(np.float32)


def loss_fn(model: MixtureOfExperts, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the mean squared error of these groups, and a little of the imbalance."""
    outputs, unequal = model(x)
    return ((outputs - y) ** 2).mean() + 0.01 * unequal


def make_train_step(mesh: Mesh) -> Any:
    """Returns the compiled step, which updates model and optimizer in place and returns the loss."""

    @functools.partial(nnx.shard_map, mesh=mesh, in_specs=(SPECS, P("expert"), P("expert")), out_specs=P())
    def sharded_loss(model: MixtureOfExperts, x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.lax.pmean(loss_fn(model, x, y), "expert")

    @nnx.jit(donate_argnums=(0, 1))
    def train_step(
        model: MixtureOfExperts, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array
    ) -> jax.Array:
        loss, grads = nnx.value_and_grad(sharded_loss)(model, x, y)
        optimizer.update(model, grads)
        return loss

    return train_step


def main() -> None:
    """Runs the example."""
    options = parse_options(__doc__)
    mesh = devices.make_mesh("expert")
    sharding = NamedSharding(mesh, P("expert"))
    model, optimizer = nnx.make_sharded(lambda: make(options.seed), mesh)
    train_step = make_train_step(mesh)
    training.run(train_step, model, optimizer, draw_batch, sharding, options)


if __name__ == "__main__":
    main()
