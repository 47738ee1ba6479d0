"""A decoder-only transformer: trained on shifted tokens, then decoding greedily with a cache of keys and values."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

VOCAB, LENGTH, FEATURES = 11, 8, 16


class Block(nnx.Module):
    def __init__(self, features: int, heads: int, *, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(features, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            num_heads=heads,
            in_features=features,
            dropout_rate=0.1,
            decode=False,
            deterministic=False,
            rngs=rngs,
        )
        self.norm2 = nnx.LayerNorm(features, rngs=rngs)
        self.up = nnx.Linear(features, 4 * features, rngs=rngs)
        self.down = nnx.Linear(4 * features, features, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x, mask=None):
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.dropout(self.down(nnx.gelu(self.up(self.norm2(x)))))


class Decoder(nnx.Module):
    def __init__(self, *, layers: int = 2, rngs: nnx.Rngs):
        self.embed = nnx.Embed(VOCAB, FEATURES, rngs=rngs)
        self.positions = nnx.Param(0.02 * rngs.params.normal((LENGTH, FEATURES)))
        self.blocks = nnx.List([Block(FEATURES, 2, rngs=rngs) for _ in range(layers)])
        self.norm = nnx.LayerNorm(FEATURES, rngs=rngs)
        self.decode = False
        self.index = nnx.Cache(jnp.array(0, jnp.int32))

    def __call__(self, tokens):
        x = self.embed(tokens)
        if self.decode:
            x = x + self.positions[self.index[...]]
            self.index[...] += 1
            mask = None
        else:
            x = x + self.positions[: tokens.shape[1]]
            mask = nnx.make_causal_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.embed.attend(self.norm(x))


def loss_fn(model, tokens):
    logits = model(tokens[:, :-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    return losses.mean(), logits


@nnx.jit
def train_step(model, optimizer, metrics, tokens):
    grad_fn = nnx.value_and_grad(loss_fn, has_aux=True)
    (loss, logits), grads = grad_fn(model, tokens)
    metrics.update(loss=loss, logits=logits, labels=tokens[:, 1:])
    optimizer.update(model, grads)
    return loss


@nnx.jit
def decode_step(model, token):
    return jnp.argmax(model(token), axis=-1)


def main():
    model = Decoder(rngs=nnx.Rngs(0, dropout=1))
    optimizer = nnx.Optimizer(model, optax.adamw(1e-2), wrt=nnx.Param)
    metrics = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))
    tokens = jax.random.randint(jax.random.key(0), (3, 4, LENGTH), 0, VOCAB)
    losses = [train_step(model, optimizer, metrics, batch) for batch in tokens]

    model.eval()
    model.set_attributes(nnx.MultiHeadAttention, decode=True)
    model.set_attributes(decode=True, raise_if_not_found=False)
    for block in model.blocks:
        block.attention.init_cache((2, LENGTH, FEATURES))
    token = jnp.array([[1], [2]])
    decoded = [token]
    for _ in range(4):
        token = decode_step(model, token)
        decoded.append(token)
    _, params, cache, rest = nnx.split(model, nnx.Param, nnx.Cache, ...)
    return [losses, metrics.compute(), jnp.concatenate(decoded, 1), params, cache, rest]
