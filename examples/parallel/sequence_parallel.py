"""Sequence parallelism: each device holds a part of each sequence, and attention goes round the ring of devices.

No device ever holds a whole sequence, or the scores of attention for one. The queries stay where they are; keys and
values move to the next device in each turn, until each has been everywhere. The softmax is accumulated, so the result
is exact. The task is to tell which token is the most frequent so far, so attention must see the whole sequence.
"""

import devices  # sets flags of JAX, so it comes first

# isort: split
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import liftnn as nnx
import training
from command_line import parse_options

VOCABULARY, FEATURES, HEADS, BATCH, LENGTH = 8, 32, 4, 8, 256
SHARDED = P(None, "sequence")
Sums = tuple[jax.Array, jax.Array, jax.Array]  # of a softmax: weighted values, weights, and the largest score


def ring_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    axis_name: str,
    is_causal: bool = False,
    mask: jax.Array | None = None,
    dropout_rate: float = 0.0,
    **unused: Any,
) -> jax.Array:
    """Computes causal attention under `shard_map`, with the shapes of `liftnn.dot_product_attention` in each shard."""
    if not is_causal or mask is not None or dropout_rate:
        raise NotImplementedError("This attention is causal, without a mask and without dropout.")
    size, here = jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name)
    length = query.shape[1]
    rows = here * length + jnp.arange(length)

    def attend(sums: Sums, block: tuple[jax.Array, jax.Array], source: jax.Array) -> Sums:
        """Adds the keys and values of the device `source`."""
        columns = source * length + jnp.arange(length)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, block[0], preferred_element_type=jnp.float32)
        scores = jnp.where(rows[:, None] >= columns, scores / query.shape[-1] ** 0.5, -jnp.inf)
        largest = jax.lax.stop_gradient(jnp.maximum(sums[2], scores.max(-1)))
        weights = jnp.exp(scores - largest[..., None])
        shrink = jnp.exp(sums[2] - largest)
        values = jnp.einsum("bhqk,bkhd->bhqd", weights, block[1])
        return sums[0] * shrink[..., None] + values, sums[1] * shrink + weights.sum(-1), largest

    def turn(carry: Any, i: jax.Array) -> tuple[Any, None]:
        sums, block = carry
        block = jax.lax.ppermute(block, axis_name, [(j, (j + 1) % size) for j in range(size)])
        return (attend(sums, block, (here - i) % size), block), None

    # The device's own block comes first: it has a key for each query, so the largest score is finite from then on.
    zeros = jnp.zeros_like(query.swapaxes(1, 2), jnp.float32)
    empty = (zeros, zeros[..., 0], jnp.full_like(zeros[..., 0], -jnp.inf))
    sums = attend(empty, (key, value), here)
    (values, weights, _), _ = jax.lax.scan(turn, (sums, (key, value)), jnp.arange(1, size))[0]
    return (values / weights[..., None]).swapaxes(1, 2).astype(query.dtype)


class Model(nnx.Module):
    """Causal attention and two dense layers: tokens (batch, length) to logits (batch, length, vocabulary)."""

    def __init__(self, rngs: nnx.Rngs, attention_fn: Callable[..., jax.Array]) -> None:
        self.embed = nnx.Embed(VOCABULARY, FEATURES, rngs=rngs)
        self.norm1 = nnx.LayerNorm(FEATURES, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, FEATURES, attention_fn=attention_fn, rngs=rngs)
        self.norm2 = nnx.LayerNorm(FEATURES, rngs=rngs)
        self.up = nnx.Linear(FEATURES, 4 * FEATURES, rngs=rngs)
        self.down = nnx.Linear(4 * FEATURES, FEATURES, rngs=rngs)
        self.head = nnx.Linear(FEATURES, VOCABULARY, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.embed(tokens)
        x = x + self.attention(self.norm1(x), is_causal=True)
        x = x + self.down(nnx.gelu(self.up(self.norm2(x))))
        return self.head(x)


RING = functools.partial(ring_attention, axis_name="sequence")


def make(seed: int, attention_fn: Callable[..., jax.Array] = RING) -> tuple[Model, nnx.Optimizer]:
    """Returns the model and its optimizer."""
    model = Model(nnx.Rngs(seed), attention_fn)
    return model, nnx.Optimizer(model, optax.adamw(1e-2))


def draw_batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens, and for each the most frequent token up to it; each sequence has its own frequencies."""
    frequencies = rng.dirichlet(np.ones(VOCABULARY), size=BATCH)
    tokens = np.stack([rng.choice(VOCABULARY, size=LENGTH, p=p) for p in frequencies])
    return tokens, np.eye(VOCABULARY)[tokens].cumsum(1).argmax(-1)


def loss_fn(model: Model, tokens: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy of these tokens: of one shard under `shard_map`."""
    return optax.softmax_cross_entropy_with_integer_labels(model(tokens), targets).mean()


def make_train_step(mesh: Mesh) -> Any:
    """Returns the compiled step, which updates model and optimizer in place and returns the loss."""

    @functools.partial(nnx.shard_map, mesh=mesh, in_specs=(P(), SHARDED, SHARDED), out_specs=P())
    def sharded_loss(model: Model, tokens: jax.Array, targets: jax.Array) -> jax.Array:
        return jax.lax.pmean(loss_fn(model, tokens, targets), "sequence")

    @nnx.jit(donate_argnums=(0, 1))
    def train_step(
        model: Model, optimizer: nnx.Optimizer, tokens: jax.Array, targets: jax.Array
    ) -> jax.Array:
        loss, grads = nnx.value_and_grad(sharded_loss)(model, tokens, targets)
        optimizer.update(model, grads)
        return loss

    return train_step


def main() -> None:
    """Runs the example."""
    options = parse_options(__doc__)
    mesh = devices.make_mesh("sequence")
    sharding = NamedSharding(mesh, SHARDED)
    model, optimizer = nnx.make_sharded(lambda: make(options.seed), mesh)
    train_step = make_train_step(mesh)
    training.run(train_step, model, optimizer, draw_batch, sharding, options)


if __name__ == "__main__":
    main()
