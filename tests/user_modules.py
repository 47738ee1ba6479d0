"""Small modules that the tests of the transforms share."""

from __future__ import annotations

import jax.numpy as jnp

import liftnn


class Affine(liftnn.Module):
    """`(x * w + b) * k`, counting its calls."""

    def __init__(self, value=1.0, size=3):
        self.w = liftnn.Param(jnp.full(size, value, jnp.float32))
        self.b = liftnn.Param(jnp.zeros(size))
        self.calls = liftnn.Variable(jnp.zeros((), jnp.int32))
        self.mode = "train"

    def __call__(self, x, k=1, *, scale=1.0):
        self.calls.value = self.calls + 1
        return (x * self.w + self.b) * k * scale

    def loss(self, x):
        """The sum of squares of the output."""
        return (self(x) ** 2).sum()


class Pair(liftnn.Module):
    """Two Affines that share `w`."""

    def __init__(self):
        self.first = Affine(2.0)
        self.second = Affine(3.0)
        self.second.w = self.first.w

    def __call__(self, x):
        return self.second(self.first(x))


class Holder(liftnn.Module):
    """A module with the attributes that it is given."""

    def __init__(self, **attributes):
        for name, value in attributes.items():
            setattr(self, name, value)


def step(model, x):
    """Calls the model; what most tests transform."""
    return model(x)
