"""A deep equilibrium model: its layer returns the fixed point of a step, as if it were infinitely deep.

S. Bai, J. Z. Kolter and V. Koltun, "Deep equilibrium models" (2019), https://arxiv.org/abs/1909.01377.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

import liftnn as nnx
from solvers import Find, fixed_point

RATE = 0.9  # no step moves two states further apart than this share of their distance


class Equilibrium(nnx.Module):
    """A layer of n inputs, of shape (n, inputs), that returns `z = step(z, x)`, of shape (n, width).

    Spectral normalization keeps the largest singular value of the recurrent weights at 1. So there is exactly one fixed
    point, and iteration finds it.

    Args:
      inputs: the features of an input.
      width: those of the output.
      find: makes a search for the fixed point from the step.
      rngs: random keys for the weights.
    """

    def __init__(
        self, inputs: int, width: int, *, find: Callable[..., Find] = fixed_point, rngs: nnx.Rngs
    ) -> None:
        self.inject = nnx.Linear(inputs, width, rngs=rngs)
        recurrent = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.recurrent = nnx.SpectralNorm(recurrent, n_steps=5, rngs=rngs)
        self.width, self.find = width, find
        self.steps = nnx.Intermediate(jnp.zeros((), jnp.int32))

    def step(self, z: jax.Array, x: jax.Array) -> jax.Array:
        """One layer of the infinitely many."""
        return nnx.tanh(RATE * self.recurrent(z) + self.inject(x))

    def __call__(self, x: jax.Array) -> jax.Array:
        z, self.steps.value = self.find(Equilibrium.step)(self, jnp.zeros((len(x), self.width)), x)
        return z


class Classifier(nnx.Module):
    """Points of the plane, of shape (n, 2), to the log-odds of the second class, of shape (n,)."""

    def __init__(self, width: int, *, find: Callable[..., Find] = fixed_point, rngs: nnx.Rngs) -> None:
        self.equilibrium = Equilibrium(2, width, find=find, rngs=rngs)
        self.output = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.output(self.equilibrium(x))[:, 0]
