"""A decoder of characters: equal blocks of attention and a dense layer, held as one Stack."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

import liftnn as nnx

Array = jax.Array | np.ndarray  # tokens: numpy's as they are read, JAX's inside a compiled function


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes of a model, its dropout, and the dtype that it computes in; weights are float32."""

    vocabulary: int
    layers: int
    features: int
    heads: int
    dropout: float
    dtype: str


class Block(nnx.Module):
    """Causal attention with rotary positions, then two dense layers, each added to its input."""

    def __init__(self, config: Config, rngs: nnx.Rngs) -> None:
        linear = functools.partial(nnx.Linear, use_bias=False, dtype=config.dtype, rngs=rngs)
        norm = functools.partial(nnx.RMSNorm, config.features, dtype=config.dtype, rngs=rngs)
        self.attention_norm, self.dense_norm = norm(), norm()
        self.attention = nnx.MultiHeadAttention(
            config.heads,
            config.features,
            use_bias=False,
            dtype=config.dtype,
            rotary_embedding=nnx.rotary_embedding,
            rngs=rngs,
        )
        self.up = linear(config.features, 4 * config.features)
        self.down = linear(4 * config.features, config.features)
        self.dropout = nnx.Dropout(config.dropout, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x: [rows, length, features]."""
        x = x + self.dropout(self.attention(self.attention_norm(x), is_causal=True))
        return x + self.dropout(self.down(nnx.gelu(self.up(self.dense_norm(x)))))


class Gpt(nnx.Module):
    """Predicts each next character from those before it."""

    def __init__(self, config: Config, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(config.vocabulary, config.features, dtype=config.dtype, rngs=rngs)
        self.blocks = nnx.Stack(config.layers, lambda rngs: Block(config, rngs), rngs=rngs)
        self.norm = nnx.RMSNorm(config.features, dtype=config.dtype, rngs=rngs)

    def __call__(self, tokens: Array) -> jax.Array:
        """From int32[rows, length] to logits float32[rows, length, vocabulary]."""
        x = self.norm(self.blocks(self.embed(jnp.asarray(tokens))))
        return self.embed.attend(x).astype(jnp.float32)  # the embedding is the last layer, too
