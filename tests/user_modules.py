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


class Twice:
    """A descriptor that stores another value than it is given, under its own name."""

    def __set_name__(self, cls, name):
        self.name = name

    def __get__(self, holder, cls=None):
        return self if holder is None else vars(holder)[self.name]

    def __set__(self, holder, x):
        vars(holder)[self.name] = x * 2


class WithDescriptor(liftnn.Module):
    x = Twice()

    def __init__(self, x):
        self.x = x


class WithProperty(liftnn.Module):
    """A module with a property that stores and returns another value, under its own name."""

    def __init__(self, x):
        self.x = x

    @property
    def x(self):
        return vars(self)["x"] * 3

    @x.setter
    def x(self, x):
        vars(self)["x"] = x * 2


class ReadOnly(liftnn.Module):
    def __init__(self, x):
        vars(self)["x"] = x

    @property
    def x(self):
        return vars(self)["x"]


def step(model, x):
    """Calls the model; what most tests transform."""
    return model(x)
