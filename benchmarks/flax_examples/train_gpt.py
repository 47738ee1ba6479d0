"""The model and the step of examples/train_gpt in Flax NNX: the blocks are stacked by `nnx.vmap` and run by `nnx.scan`.

Its attention has no rotary positions, so that a function rotates queries and keys.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx


def rotate(x: jax.Array) -> jax.Array:
    """Turns pairs of features of [rows, length, heads, depth] by angles that grow with the position."""
    half = x.shape[-1] // 2
    steps = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = jnp.arange(x.shape[1], dtype=jnp.float32)[:, None, None] * steps
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = x[..., :half], x[..., half:]
    turned = (first * cos - second * sin, first * sin + second * cos)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, **_: Any) -> jax.Array:
    """Causal attention with rotary positions."""
    return jax.nn.dot_product_attention(rotate(query), rotate(key), value, is_causal=True)


class Block(nnx.Module):
    def __init__(self, config: Any, rngs: nnx.Rngs):
        linear = functools.partial(nnx.Linear, use_bias=False, dtype=config.dtype, rngs=rngs)
        norm = functools.partial(nnx.RMSNorm, config.features, dtype=config.dtype, rngs=rngs)
        self.attention_norm, self.dense_norm = norm(), norm()
        self.attention = nnx.MultiHeadAttention(
            config.heads,
            config.features,
            use_bias=False,
            dtype=config.dtype,
            attention_fn=attend,
            decode=False,
            rngs=rngs,
        )
        self.up = linear(config.features, 4 * config.features)
        self.down = linear(4 * config.features, config.features)
        self.dropout = nnx.Dropout(config.dropout, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.down(nnx.gelu(self.up(self.dense_norm(x)))))


class Gpt(nnx.Module):
    def __init__(self, config: Any, rngs: nnx.Rngs):
        @nnx.split_rngs(splits=config.layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def make_blocks(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs)

        self.embed = nnx.Embed(config.vocabulary, config.features, dtype=config.dtype, rngs=rngs)
        self.blocks = make_blocks(rngs)
        self.norm = nnx.RMSNorm(config.features, dtype=config.dtype, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def run(x: jax.Array, block: Block) -> jax.Array:
            return block(x)

        x = self.norm(run(self.embed(jnp.asarray(tokens)), self.blocks))
        return self.embed.attend(x).astype(jnp.float32)


def decays(params: nnx.State) -> nnx.State:
    return nnx.map_state(lambda path, _: path[-1] in ("kernel", "embedding"), params)


def make(config: Any, options: Any) -> tuple[Gpt, nnx.Optimizer]:
    model = Gpt(config, nnx.Rngs(options.seed))
    peak, warm_up = options.learning_rate, max(1, options.steps // 20)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, peak, warm_up, max(warm_up + 1, options.steps), peak / 20
    )
    adamw = optax.adamw(schedule, b2=0.99, weight_decay=options.weight_decay, mask=decays)
    tx = optax.chain(optax.clip_by_global_norm(options.clip), adamw)
    return model, nnx.Optimizer(model, tx, wrt=nnx.Param)


def loss_fn(model: Gpt, tokens: jax.Array) -> jax.Array:
    logits = model(tokens[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


@nnx.jit(donate_argnums=(0, 1))
def train_step(model: Gpt, optimizer: nnx.Optimizer, batch: jax.Array) -> jax.Array:
    axes = nnx.StateAxes({nnx.Param: None, ...: nnx.Carry})

    @nnx.scan(in_axes=(axes, nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def accumulate(model: Gpt, total: Any, tokens: jax.Array) -> tuple[Any, jax.Array]:
        loss, grads = nnx.value_and_grad(loss_fn)(model, tokens)
        return jax.tree.map(jnp.add, total, grads), loss

    zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
    total, losses = accumulate(model, zeros, batch)
    optimizer.update(model, jax.tree.map(lambda x: x / len(batch), total))
    return losses.mean()
