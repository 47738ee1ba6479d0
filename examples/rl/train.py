"""Balances a pole by PPO: environments, advantages, minibatches and many updates are one compiled program."""

import argparse
import functools
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import liftnn as nnx
import plots
from agent import Agent, Batch, advantages_of, loss_fn
from cartpole import MOST_STEPS, CartPole, Moved
from options import EPOCHS, MINIBATCHES, parse_options

TEST_EPISODES = 100


class Experience(NamedTuple):
    """A step of every environment."""

    observations: jax.Array
    actions: jax.Array
    log_probabilities: jax.Array
    moved: Moved


def act(agent: Agent, environments: CartPole) -> Experience:
    """One step of every environment; `environments` is one module with stacked Variables."""
    observations = environments.observation.value
    actions, log_probabilities = agent.act(observations)
    moved = nnx.vmap(CartPole.step)(environments, actions)
    return Experience(observations, actions, log_probabilities, moved)


def collect(agent: Agent, environments: CartPole, steps: int) -> tuple[Batch, Moved]:
    """Takes steps with the current policy; returns them with advantages, and how the episodes went."""
    play = nnx.scan(act, length=steps, in_axes=None, out_axes=0)
    observations, actions, log_probabilities, moved = play(agent, environments)
    values = agent.values(observations)
    rewards = jnp.ones_like(values)
    next_values = agent.values(moved.observation)
    advantages = advantages_of(rewards, values, next_values, moved.terminated, moved.done)
    return Batch(observations, actions, log_probabilities, advantages, advantages + values), moved


def improve(agent: Agent, optimizer: nnx.Optimizer, batch: Batch, rows: jax.Array) -> None:
    """Takes one optimizer step on some rows of the batch."""
    grads = nnx.grad(loss_fn)(agent, jax.tree.map(lambda x: x[rows], batch))
    optimizer.update(agent, grads)


def update(
    agent: Agent, optimizer: nnx.Optimizer, environments: CartPole, *, steps: int
) -> tuple[jax.Array, jax.Array]:
    """One update of PPO; returns the sum of the returns of all episodes that ended, and their number."""
    batch, moved = collect(agent, environments, steps)
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
    keys = jax.random.split(agent.rngs(), EPOCHS)
    orders = jax.vmap(lambda key: jax.random.permutation(key, len(batch.actions)))(keys)
    rows = orders.reshape(EPOCHS * MINIBATCHES, -1)
    nnx.scan(improve, in_axes=(None, None, None, 0), out_axes=None)(agent, optimizer, batch, rows)
    return (moved.steps * moved.done).sum(), moved.done.sum()


def train(agent: Agent, environments: CartPole, options: argparse.Namespace) -> plots.History:
    """Trains the agent, and prints a line for each call of the compiled program, which makes many updates."""
    schedule = optax.linear_schedule(options.learning_rate, 0.0, options.updates * EPOCHS * MINIBATCHES)
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(schedule, eps=1e-5))
    optimizer = nnx.Optimizer(agent, tx, wrt=nnx.Param)
    calls = min(10, options.updates)
    updates = options.updates // calls
    one = functools.partial(update, steps=options.steps)
    make_updates = nnx.repeat(one, updates, donate_argnums=(0, 1, 2))
    size = options.steps * options.environments
    history = plots.History(size)
    for call in range(1, calls + 1):
        start = time.perf_counter()
        returns, episodes = map(np.asarray, make_updates(agent, optimizer, environments))
        seconds = time.perf_counter() - start
        history.add(returns, episodes)
        print(
            f"update {call * updates}/{calls * updates}: {call * updates * size:,} steps, "
            f"return {history.latest:.1f}, {updates * size / seconds:,.0f} steps/s",
            flush=True,
        )
    return history


@nnx.jit
def evaluate(agent: Agent, environments: CartPole) -> jax.Array:
    """The return of the first episode of each environment, with the likeliest action in each step."""

    def play(agent: Agent, environments: CartPole) -> jax.Array:
        actions = agent.log_probabilities(environments.observation.value).argmax(axis=-1)
        return nnx.vmap(CartPole.step)(environments, actions).done

    done = nnx.scan(play, length=MOST_STEPS, in_axes=None, out_axes=0)(agent, environments)
    return done.argmax(axis=0) + 1


def main() -> int:
    """Runs the example; returns its exit code."""
    options = parse_options()
    rngs = nnx.Rngs(options.seed)
    agent = Agent(rngs=rngs)
    make_environments = nnx.vmap(CartPole)
    environments = make_environments(jax.random.split(rngs.environments(), options.environments))
    print(
        f"{nnx.count_params(agent):,} parameters, {options.environments} environments, "
        f"seed {options.seed}, {jax.default_backend()}",
        flush=True,
    )
    history = train(agent, environments, options)
    plots.draw_returns(history, options.output / "returns.png")
    print(f"plot: {options.output / 'returns.png'}")
    returns = evaluate(agent, make_environments(jax.random.split(rngs.environments(), TEST_EPISODES)))
    print(f"return of {TEST_EPISODES} new episodes: mean {returns.mean():.1f}, least {returns.min()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
