"""A training step that is exported by one process and called by another."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import optax

import liftnn


class Net(liftnn.Module):
    """A network with every kind of state, which notes what it has seen."""

    def __init__(self, rngs):
        self.first = liftnn.Linear(3, 8, rngs=rngs)
        self.norm = liftnn.BatchNorm(8, rngs=rngs)
        self.dropout = liftnn.Dropout(0.5, rngs=rngs)
        self.last = liftnn.Linear(8, 1, rngs=rngs)
        self.layers = [self.first, self.last]
        self.activation = jax.nn.relu

    def __call__(self, x):
        return self.last(self.dropout(self.activation(self.norm(self.first(x)))))


def make():
    """A model and its optimizer."""
    model = Net(liftnn.Rngs(0))
    return model, liftnn.Optimizer(model, optax.adam(optax.cosine_decay_schedule(0.1, 10)))


def train(model, optimizer, x, y):
    """One step; it also changes the structure of the model."""
    loss, grads = liftnn.value_and_grad(lambda model: ((model(x) - y) ** 2).mean())(model)
    optimizer.update(model, grads)
    model.seen = [liftnn.Intermediate(x.mean()), ("step", 1)]
    return loss, model.last


def grown(model, optimizer):
    """The structure that the second call is exported for."""
    model.seen = [liftnn.Intermediate(jnp.zeros(())), ("step", 1)]
    return model, optimizer


X, Y = jnp.arange(12.0).reshape(4, 3) / 12, jnp.ones((4, 1))


def run(first, second):
    """Two steps on new objects: what they return, and the state after them."""
    model, optimizer = make()
    losses = []
    for call in (first, second):
        loss, last = call(model, optimizer, X, Y)
        assert last is model.last
        assert model.layers[1] is last
        losses.append(float(loss))
    values = [
        jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in jax.tree.leaves(liftnn.state((model, optimizer)))
    ]
    return losses, [jax.device_get(x) for x in values], model.seen[1]


def main(written, read):
    """Reads exported steps, runs them, and writes what they did."""
    with open(written, "rb") as file:
        blobs = pickle.load(file)
    with open(read, "wb") as file:
        pickle.dump(run(*[liftnn.deserialize(blob).call for blob in blobs]), file)
