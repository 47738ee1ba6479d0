"""Sequence to sequence: a bidirectional encoder, a decoder cell with attention, and teacher forcing by nnx.scan."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

VOCAB, EMBED, HIDDEN = 9, 6, 8


class Encoder(nnx.Module):
    def __init__(self, *, rngs):
        self.embed = nnx.Embed(VOCAB, EMBED, rngs=rngs)
        forward = nnx.RNN(nnx.GRUCell(EMBED, HIDDEN, rngs=rngs))
        backward = nnx.RNN(nnx.GRUCell(EMBED, HIDDEN, rngs=rngs))
        self.both = nnx.Bidirectional(forward, backward)
        self.project = nnx.Linear(2 * HIDDEN, HIDDEN, rngs=rngs)

    def __call__(self, tokens, lengths):
        return nnx.tanh(self.project(self.both(self.embed(tokens), seq_lengths=lengths)))


class DecoderCell(nnx.Module):
    def __init__(self, *, rngs):
        self.embed = nnx.Embed(VOCAB, EMBED, rngs=rngs)
        self.cell = nnx.LSTMCell(EMBED + HIDDEN, HIDDEN, rngs=rngs)
        self.query = nnx.Linear(HIDDEN, HIDDEN, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(2 * HIDDEN, VOCAB, rngs=rngs)

    def __call__(self, carry, token, memory, mask):
        (c, h), context = carry
        (c, h), _ = self.cell((c, h), jnp.concatenate([self.embed(token), context], axis=-1))
        scores = jnp.einsum("bd,btd->bt", self.query(h), memory)
        weights = nnx.softmax(jnp.where(mask, scores, -1e9))
        context = jnp.einsum("bt,btd->bd", weights, memory)
        logits = self.out(jnp.concatenate([h, context], axis=-1))
        return ((c, h), context), logits


class Seq2Seq(nnx.Module):
    def __init__(self, *, rngs):
        self.encoder = Encoder(rngs=rngs)
        self.decoder = DecoderCell(rngs=rngs)

    def __call__(self, source, lengths, target):
        memory = self.encoder(source, lengths)
        mask = jnp.arange(source.shape[1])[None] < lengths[:, None]
        zeros = jnp.zeros((source.shape[0], HIDDEN))
        carry = ((zeros, zeros), zeros)

        @nnx.scan(in_axes=(None, nnx.Carry, 1), out_axes=(nnx.Carry, 1))
        def step(decoder, carry, token):
            return decoder(carry, token, memory, mask)

        _, logits = step(self.decoder, carry, target)
        return logits


@nnx.jit
def train_step(model, optimizer, batch):
    def loss_fn(model):
        logits = model(batch["source"], batch["lengths"], batch["target"][:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["target"][:, 1:])
        weights = batch["target"][:, 1:] > 0
        return jnp.sum(losses * weights) / jnp.sum(weights)

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


@nnx.jit
def greedy(model, source, lengths):
    memory = model.encoder(source, lengths)
    mask = jnp.arange(source.shape[1])[None] < lengths[:, None]
    zeros = jnp.zeros((source.shape[0], HIDDEN))
    carry, token, found = ((zeros, zeros), zeros), jnp.ones(source.shape[0], jnp.int32), []
    for _ in range(4):
        carry, logits = model.decoder(carry, token, memory, mask)
        token = jnp.argmax(logits, -1)
        found.append(token)
    return jnp.stack(found, 1)


def main():
    model = Seq2Seq(rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.chain(optax.clip(1.0), optax.adam(1e-2)), wrt=nnx.Param)
    key = jax.random.key(1)
    source = jax.random.randint(key, (3, 4, 5), 1, VOCAB)
    batches = [
        {
            "source": x,
            "lengths": jnp.array([5, 3, 4, 2]),
            "target": jnp.pad(x[:, ::-1], ((0, 0), (1, 0)), constant_values=1),
        }
        for x in source
    ]
    losses = [train_step(model, optimizer, batch) for batch in batches]
    decoded = greedy(model, source[0], batches[0]["lengths"])
    return [losses, decoded, nnx.state(model, nnx.Param)]
