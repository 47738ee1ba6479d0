"""Layers and cells to scan over, and the loops that they stand for."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import liftnn
from liftnn import Carry

X = jnp.linspace(-1.0, 1.0, 3)
BATCH = jnp.sin(jnp.arange(15.0)).reshape(5, 3)
STEPS = 4


class Layer(liftnn.Module):
    """A layer with everything that a loop could get wrong: dropout, running statistics, counts, notes."""

    def __init__(self, key):
        rngs = liftnn.Rngs(key)
        self.linear = liftnn.Linear(3, 3, rngs=rngs)
        self.norm = liftnn.BatchNorm(3, rngs=rngs)
        self.dropout = liftnn.Dropout(0.5, rngs=rngs)
        self.calls = liftnn.Variable(jnp.zeros((), jnp.int32))
        self.factor = jnp.ones(())

    def __call__(self, x):
        self.calls.value = self.calls + 1
        self.factor = self.factor * 2
        x = self.dropout(jnp.tanh(self.norm(self.linear(x))))
        self.sow(liftnn.Intermediate, "seen", x)
        return x


def keys():
    return jax.random.split(jax.random.key(0), STEPS)


def stacked(init=Layer):
    return liftnn.vmap(init)(keys())


def listed(init=Layer):
    return [init(key) for key in keys()]


def stack(layers):
    """Layers, one for each step, as one layer with stacked values: what a scan should leave."""
    states, graphdefs = zip(*map(liftnn.split, layers), strict=True)
    assert all(g == graphdefs[0] for g in graphdefs)
    return graphdefs[0].merge(jax.tree.map(lambda *xs: jnp.stack(xs), *states))


over_layers = liftnn.scan(lambda x, layer: layer(x), in_axes=(Carry, 0), out_axes=Carry)


def unrolled(x, layers):
    for layer in layers:
        x = layer(x)
    return x


def remat(f):
    return liftnn.lift(f, bind=lambda plan, pure: jax.checkpoint(pure))


class Cell(liftnn.Module):
    """A cell for a loop over time."""

    def __init__(self):
        rngs = liftnn.Rngs(0)
        self.inner = liftnn.Linear(3, 3, rngs=rngs)
        self.outer = liftnn.Linear(3, 3, rngs=rngs)
        self.rngs = liftnn.Rngs(1)
        self.steps = liftnn.Variable(0)
        self.last = liftnn.Intermediate(jnp.zeros(3))

    def __call__(self, h, x):
        self.steps.value = self.steps + 1
        h = jnp.tanh(self.inner(h) + self.outer(x)) + 0.1 * jax.random.normal(self.rngs(), (3,))
        self.last = liftnn.Intermediate(h)
        return h, h.sum()


def loop(cell, h, xs, reverse=False):
    ys = []
    for x in xs[::-1] if reverse else xs:
        h, y = cell(h, x)
        ys.append(y)
    return h, jnp.stack(ys[::-1] if reverse else ys)
