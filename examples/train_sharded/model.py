"""A decoder of stacked blocks: the axes of its weights and activations have names, which RULES map to a mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

import liftnn as nnx

RULES = {
    "batch": ("data", "fsdp"),
    "embed": "fsdp",
    "heads": "tensor",
    "hidden": "tensor",
    "vocab": "tensor",
    "layers": None,
}
"""Where each named axis is sharded: the batch over data and fsdp, weights over fsdp and tensor."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes of a decoder; its tokens are bytes."""

    layers: int = 4
    features: int = 128
    hidden: int = 512
    heads: int = 4
    vocabulary: int = 256


class Block(nnx.Module):
    """Causal attention with rotary positions, then two dense layers, each added to its input."""

    def __init__(self, config: Config, rngs: nnx.Rngs) -> None:
        linear = functools.partial(nnx.Linear, use_bias=False, dtype=jnp.bfloat16, rngs=rngs)
        norm = functools.partial(nnx.RMSNorm, config.features, dtype=jnp.bfloat16, rngs=rngs)
        self.attention_norm, self.dense_norm = norm(), norm()
        self.attention = nnx.MultiHeadAttention(
            config.heads,
            config.features,
            use_bias=False,
            dtype=jnp.bfloat16,
            rotary_embedding=nnx.rotary_embedding,
            kernel_metadata={"sharding": ("embed", "heads", None)},
            out_kernel_metadata={"sharding": ("heads", None, "embed")},
            rngs=rngs,
        )
        up, down = {"sharding": ("embed", "hidden")}, {"sharding": ("hidden", "embed")}
        self.up = linear(config.features, config.hidden, kernel_metadata=up)
        self.down = linear(config.hidden, config.features, kernel_metadata=down)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x: bfloat16[rows, length, features]."""
        x = x + self.attention(self.attention_norm(x), is_causal=True)
        hidden = nnx.with_logical_constraint(self.up(self.dense_norm(x)), ("batch", None, "hidden"))
        x = x + self.down(jax.nn.gelu(hidden))
        return nnx.with_logical_constraint(x, ("batch", None, None))


class Decoder(nnx.Module):
    """Predicts each next byte. Weights are float32, computations bfloat16; gradients recompute each block."""

    def __init__(self, config: Config, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(
            config.vocabulary,
            config.features,
            dtype=jnp.bfloat16,
            embedding_metadata={"sharding": ("vocab", None)},
            rngs=rngs,
        )
        self.blocks = nnx.Stack(
            config.layers,
            lambda rngs: Block(config, rngs),
            rngs=rngs,
            remat=True,
            transform_metadata={nnx.PARTITION_NAME: "layers"},
        )
        self.norm = nnx.RMSNorm(config.features, dtype=jnp.bfloat16, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """From int32[rows, length] to logits float32[rows, length, vocabulary]."""
        x = nnx.with_logical_constraint(self.embed(tokens), ("batch", None, None))
        logits = self.embed.attend(self.norm(self.blocks(x)))
        return nnx.with_logical_constraint(logits, ("batch", None, "vocab")).astype(jnp.float32)
