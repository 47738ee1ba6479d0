"""A GRU that predicts each value of a series from those before: by scan, over known values or over its own."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import liftnn as nnx

Array = jax.Array | np.ndarray
Hidden = list[jax.Array]


class Normal(NamedTuple):
    """Normal distributions, by their means and deviations."""

    mean: jax.Array
    deviation: jax.Array

    def log_density(self, values: Array) -> jax.Array:
        """The logarithm of the density at some values."""
        z = (jnp.asarray(values) - self.mean) / self.deviation
        return -(z**2) / 2 - jnp.log(self.deviation) - jnp.log(2 * jnp.pi) / 2


class Forecaster(nnx.Module):
    """Layers of GRU cells, and a normal distribution of the next value.

    Args:
      features: how many are known in advance of each hour.
      hidden: features of each cell.
      layers: the number of cells.
      rngs: the streams `params`, and `noise` for values that are drawn.
    """

    def __init__(self, features: int, hidden: int, layers: int, *, rngs: nnx.Rngs) -> None:
        sizes = [1 + features, *[hidden] * layers]
        self.cells = [nnx.GRUCell(n, m, rngs=rngs) for n, m in itertools.pairwise(sizes)]
        self.output = nnx.Linear(1 + features + hidden, 2, rngs=rngs)
        self.rngs = rngs

    def start(self, count: int) -> Hidden:
        """Returns the first hidden states, of shape (count, hidden) each."""
        return [jnp.zeros((count, cell.hidden_features)) for cell in self.cells]

    def step(self, hidden: Hidden, last: Array, features: Array) -> tuple[Hidden, Normal]:
        """Returns the new hidden states, and the distribution of the value of this hour.

        Args:
          hidden: the hidden states.
          last: the values of the hour before, of shape (n,).
          features: what is known in advance of this hour, of shape (n, features).
        """
        x = inputs = jnp.concatenate([last[:, None], features], axis=-1)
        after: Hidden = []
        for cell, carry in zip(self.cells, hidden, strict=True):
            carry, x = cell(carry, x)
            after.append(carry)
        change, spread = jnp.moveaxis(self.output(jnp.concatenate([inputs, x], axis=-1)), -1, 0)
        return after, Normal(last + change, nnx.softplus(spread) + 1e-3)

    def read(self, values: Array, features: Array) -> tuple[Hidden, Normal]:
        """Predicts each value but the first from the true ones before it: teacher forcing.

        Args:
          values: of shape (n, hours).
          features: of shape (n, hours, features).

        Returns:
          The hidden states after the last but one value, and the distributions, of shape (n, hours - 1).
        """
        scan = nnx.scan(self.step, in_axes=(nnx.Carry, 1, 1), out_axes=(nnx.Carry, 1))
        return scan(self.start(len(values)), values[:, :-1], features[:, 1:])

    def forecast(self, values: Array, features: Array) -> jax.Array:
        """Reads the known values, then goes on with values that it draws itself: one path for each series.

        Args:
          values: those known, of shape (n, known).
          features: of the known hours and those to forecast, of shape (n, known + hours, features).

        Returns:
          The paths, of shape (n, hours).
        """
        known, features = values.shape[1], jnp.asarray(features)
        hidden, _ = self.read(values, features[:, :known])

        def go_on(
            carry: tuple[Hidden, jax.Array], features: jax.Array
        ) -> tuple[tuple[Hidden, jax.Array], jax.Array]:
            hidden, normal = self.step(*carry, features)
            value = normal.mean + normal.deviation * self.rngs.noise.normal(normal.mean.shape)
            return (hidden, value), value

        scan = nnx.scan(go_on, in_axes=(nnx.Carry, 1), out_axes=(nnx.Carry, 1))
        return scan((hidden, jnp.asarray(values[:, -1])), features[:, known:])[1]
