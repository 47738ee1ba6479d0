"""Sine regression: each task is one sine, with some points to learn from and others to be judged by.

C. Finn, P. Abbeel and S. Levine, "Model-agnostic meta-learning for fast adaptation of deep networks" (2017),
https://arxiv.org/abs/1703.03400, section 5.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import liftnn as nnx

LARGEST_X = 5.0


class Points(NamedTuple):
    """Points of a curve, each of shape (..., n, 1)."""

    x: jax.Array
    y: jax.Array


class Task(NamedTuple):
    """A sine with an amplitude of 0.1 to 5 and a phase of 0 to pi, or many along the first axis."""

    amplitude: jax.Array
    phase: jax.Array
    support: Points
    query: Points


def draw_tasks(rngs: nnx.Rngs, count: int, shots: int) -> Task:
    """Draws `count` tasks, with as many points to learn from as to be judged by."""
    amplitude = rngs.uniform((count, 1, 1), minval=0.1, maxval=5.0)
    phase = rngs.uniform((count, 1, 1), maxval=jnp.pi)

    def draw_points() -> Points:
        x = rngs.uniform((count, shots, 1), minval=-LARGEST_X, maxval=LARGEST_X)
        return Points(x, amplitude * jnp.sin(x - phase))

    return Task(amplitude, phase, draw_points(), draw_points())
