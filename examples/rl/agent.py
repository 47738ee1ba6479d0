"""The actor and the critic, and what PPO needs of them: the policy, advantages and the loss.

J. Schulman et al., "Proximal policy optimization algorithms" (2017), https://arxiv.org/abs/1707.06347.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import liftnn as nnx

ACTIONS = 2
CLIP = 0.2  # how far the probability of an action may move in one update
VALUE_WEIGHT = 0.5
ENTROPY_WEIGHT = 0.01


class Agent(nnx.Module):
    """Two networks of observations, of shape (..., 4), and the random stream that actions are drawn from."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.actor = make_network(ACTIONS, rngs=rngs, kernel_init=nnx.initializers.zeros)  # all actions alike
        self.critic = make_network(1, rngs=rngs)
        self.rngs = rngs

    def log_probabilities(self, observations: jax.Array) -> jax.Array:
        """The log-probability of each action, of shape (..., 2)."""
        return nnx.log_softmax(self.actor(observations))

    def values(self, observations: jax.Array) -> jax.Array:
        """The return to be expected from each observation on, of shape (...)."""
        return self.critic(observations)[..., 0]

    def act(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Actions that are drawn from the policy, and their log-probabilities."""
        log_probabilities = self.log_probabilities(observations)
        actions = self.rngs.categorical(log_probabilities)
        return actions, pick(log_probabilities, actions)


def make_network(outputs: int, *, rngs: nnx.Rngs, **options: Any) -> nnx.Sequential:
    """Two hidden layers; the options are those of the last layer."""
    return nnx.Sequential(
        nnx.Linear(4, 64, rngs=rngs),
        nnx.tanh,
        nnx.Linear(64, 64, rngs=rngs),
        nnx.tanh,
        nnx.Linear(64, outputs, rngs=rngs, **options),
    )


def pick(log_probabilities: jax.Array, actions: jax.Array) -> jax.Array:
    """The entry of each action, of shape (...)."""
    return jnp.take_along_axis(log_probabilities, actions[..., None], axis=-1)[..., 0]


class Batch(NamedTuple):
    """What the loss is computed from; each has one entry for each step of an environment."""

    observations: jax.Array
    actions: jax.Array
    log_probabilities: jax.Array
    advantages: jax.Array
    returns: jax.Array


def advantages_of(
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    terminated: jax.Array,
    done: jax.Array,
    *,
    discount: float = 0.99,
    decay: float = 0.95,
) -> jax.Array:
    """Generalized advantage estimates, along the first axis.

    Nothing is expected after a step that terminates. After a step at which the time is up, the value of the state
    reached is, but the sum over later steps ends.

    References:
      J. Schulman et al., "High-dimensional continuous control using generalized advantage estimation" (2015),
      https://arxiv.org/abs/1506.02438.
    """
    errors = rewards + discount * next_values * (1 - terminated) - values

    def add(later: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        error, done = step
        advantage = error + discount * decay * (1 - done) * later
        return advantage, advantage

    return nnx.scan(add, reverse=True)(jnp.zeros_like(values[0]), (errors, done))[1]


def loss_fn(agent: Agent, batch: Batch) -> jax.Array:
    """The clipped loss of the policy, plus that of the values, minus the entropy."""
    log_probabilities = agent.log_probabilities(batch.observations)
    ratios = jnp.exp(pick(log_probabilities, batch.actions) - batch.log_probabilities)
    advantages = (batch.advantages - batch.advantages.mean()) / (batch.advantages.std() + 1e-8)
    gains = jnp.minimum(ratios * advantages, jnp.clip(ratios, 1 - CLIP, 1 + CLIP) * advantages)
    errors = (agent.values(batch.observations) - batch.returns) ** 2
    entropies = -(jnp.exp(log_probabilities) * log_probabilities).sum(axis=-1)
    return VALUE_WEIGHT * errors.mean() - gains.mean() - ENTROPY_WEIGHT * entropies.mean()
