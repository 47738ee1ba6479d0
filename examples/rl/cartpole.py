"""Cart-pole as a module: a pole is balanced on a cart that is pushed to the left or to the right.

The equations are those of A. G. Barto, R. S. Sutton and C. W. Anderson, "Neuronlike adaptive elements that can solve
difficult learning control problems", IEEE Transactions on Systems, Man, and Cybernetics 13 (1983), without friction.
The limits and the number of steps are those of CartPole-v1 of Gymnasium.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import liftnn as nnx

GRAVITY = 9.8
CART_MASS, POLE_MASS = 1.0, 0.1
HALF_LENGTH = 0.5  # from the pivot to the centre of mass of the pole
FORCE = 10.0
SECONDS = 0.02  # between two steps
MOST_STEPS = 500
LARGEST_POSITION = 2.4
LARGEST_ANGLE = 12 * 2 * jnp.pi / 360


class Moved(NamedTuple):
    """What a step leads to.

    Attributes:
      observation: the state that was reached, also where the episode ends, of shape (4,).
      terminated: whether the pole or the cart is out of bounds.
      done: whether the episode has ended, for that reason or after 500 steps.
      steps: the steps of the episode so far; each is rewarded by 1, so this is also its return.
    """

    observation: jax.Array
    terminated: jax.Array
    done: jax.Array
    steps: jax.Array


class CartPole(nnx.Module):
    """One environment, which starts again by itself when an episode has ended; `vmap` makes many.

    Args:
      key: decides where the episodes start.
    """

    def __init__(self, key: jax.Array) -> None:
        self.rngs = nnx.Rngs(key)
        self.observation = nnx.Variable(self.draw_start())
        self.steps = nnx.Variable(jnp.zeros((), jnp.int32))

    def draw_start(self) -> jax.Array:
        """A state near the upright one: position, velocity, angle, and angular velocity."""
        return self.rngs.uniform((4,), minval=-0.05, maxval=0.05)

    def step(self, action: jax.Array) -> Moved:
        """Pushes the cart to the left (0) or to the right (1)."""
        state = move(self.observation.value, action)
        steps = self.steps.value + 1
        terminated = (jnp.abs(state[0]) > LARGEST_POSITION) | (jnp.abs(state[2]) > LARGEST_ANGLE)
        done = terminated | (steps >= MOST_STEPS)
        self.observation.value = jnp.where(done, self.draw_start(), state)
        self.steps.value = jnp.where(done, 0, steps)
        return Moved(state, terminated, done, steps)


def move(state: jax.Array, action: jax.Array) -> jax.Array:
    """The state after one step of Euler's method."""
    _, velocity, angle, angular_velocity = state
    force = jnp.where(action == 1, FORCE, -FORCE)
    mass = CART_MASS + POLE_MASS
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    push = (force + POLE_MASS * HALF_LENGTH * angular_velocity**2 * sin) / mass
    inertia = HALF_LENGTH * (4 / 3 - POLE_MASS * cos**2 / mass)
    angular_acceleration = (GRAVITY * sin - cos * push) / inertia
    acceleration = push - POLE_MASS * HALF_LENGTH * angular_acceleration * cos / mass
    derivative = jnp.stack([velocity, acceleration, angular_velocity, angular_acceleration])
    return state + SECONDS * derivative
