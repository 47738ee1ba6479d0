"""Tensor parallelism: the heads of attention and the hidden features of a Transformer are spread over the devices.

The mesh has two axes: each row of devices trains on its part of the batch, and the devices of a row share each layer.
The layers declare logical names of their axes, and rules map these to the mesh. Each block then needs two sums over the
devices of a row, after attention and after the dense layers. The task is to predict the next token of a made-up
language, in which each token has two likely successors.
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

VOCABULARY, FEATURES, HEADS, HIDDEN, BATCH, LENGTH = 32, 64, 4, 256, 16, 32
RULES = {"batch": "data", "heads": "model", "hidden": "model"}


class Block(nnx.Module):
    """Causal attention and two dense layers, each with a residual connection."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm1 = nnx.LayerNorm(FEATURES, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            HEADS,
            FEATURES,
            kernel_metadata={"sharding": (None, "heads", None)},
            bias_metadata={"sharding": ("heads", None)},
            out_kernel_metadata={"sharding": ("heads", None, None)},
            out_bias_metadata={"sharding": (None,)},
            rotary_embedding=nnx.rotary_embedding,
            rngs=rngs,
        )
        self.norm2 = nnx.LayerNorm(FEATURES, rngs=rngs)
        columns, rows = {"sharding": (None, "hidden")}, {"sharding": ("hidden", None)}
        bias = {"sharding": ("hidden",)}
        self.up = nnx.Linear(FEATURES, HIDDEN, kernel_metadata=columns, bias_metadata=bias, rngs=rngs)
        self.down = nnx.Linear(HIDDEN, FEATURES, kernel_metadata=rows, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + whole_features(self.attention(self.norm1(x), is_causal=True))
        return x + whole_features(self.down(nnx.gelu(self.up(self.norm2(x)))))


class Transformer(nnx.Module):
    """Tokens of shape (batch, length) to logits of shape (batch, length, vocabulary)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(VOCABULARY, FEATURES, rngs=rngs)
        self.blocks = [Block(rngs) for _ in range(2)]
        self.norm = nnx.LayerNorm(FEATURES, rngs=rngs)
        self.head = nnx.Linear(FEATURES, VOCABULARY, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = whole_features(self.embed(tokens))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def whole_features(x: jax.Array) -> jax.Array:
    """Keeps the features between the layers whole on each device; does nothing without a mesh."""
    return nnx.with_logical_constraint(x, ("batch", None, None))


def make(seed: int) -> tuple[Transformer, nnx.Optimizer]:
    """Returns the model and its optimizer."""
    model = Transformer(nnx.Rngs(seed))
    return model, nnx.Optimizer(model, optax.adamw(3e-3))


def draw_batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens, and the token after each."""
    successors = np.random.default_rng(0).integers(VOCABULARY, size=(VOCABULARY, 2))
    tokens = [rng.integers(VOCABULARY, size=BATCH)]
    for _ in range(LENGTH):
        tokens.append(successors[tokens[-1], rng.integers(2, size=BATCH)])
    sequences = np.stack(tokens, axis=1)
    return sequences[:, :-1], sequences[:, 1:]


def loss_fn(model: Transformer, tokens: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(model(tokens), targets).mean()


@nnx.jit(donate_argnums=(0, 1))
def train_step(
    model: Transformer, optimizer: nnx.Optimizer, tokens: jax.Array, targets: jax.Array
) -> jax.Array:
    """Updates model and optimizer in place, each Variable where it is; returns the loss."""
    loss, grads = nnx.value_and_grad(loss_fn)(model, tokens, targets)
    optimizer.update(model, grads)
    return loss


def main() -> None:
    """Runs the example."""
    options = parse_options(__doc__)
    mesh = devices.make_mesh("data", "model")
    sharding = NamedSharding(mesh, P("data"))
    with nnx.axis_rules(RULES, mesh):
        model, optimizer = nnx.make_sharded(lambda: make(options.seed))
        training.run(train_step, model, optimizer, draw_batch, sharding, options)


if __name__ == "__main__":
    main()
