"""PPO with an LSTM policy on a small chain of states: rollouts by nnx.scan, advantages, clipped updates."""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import nnx

STATES, ACTIONS, HIDDEN, STEPS, ENVS = 5, 2, 8, 6, 4


class ActorCritic(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        init = functools.partial(nnx.initializers.orthogonal)
        self.encoder = nnx.Linear(STATES, HIDDEN, kernel_init=init(jnp.sqrt(2)), rngs=rngs)
        self.cell = nnx.OptimizedLSTMCell(HIDDEN, HIDDEN, rngs=rngs)
        self.actor = nnx.Linear(HIDDEN, ACTIONS, kernel_init=init(0.01), rngs=rngs)
        self.critic = nnx.Linear(HIDDEN, 1, kernel_init=init(1.0), rngs=rngs)

    def __call__(self, carry, observation, done):
        carry = jax.tree.map(lambda x: jnp.where(done[:, None], 0.0, x), carry)
        carry, y = self.cell(carry, nnx.tanh(self.encoder(observation)))
        return carry, self.actor(y), self.critic(y)[:, 0]


def start():
    zeros = jnp.zeros((ENVS, HIDDEN))
    return (zeros, zeros), jnp.arange(ENVS) % STATES, jnp.zeros(ENVS, bool)


def move(state, action):
    state = jnp.clip(state + 2 * action - 1, 0, STATES - 1)
    done = state == STATES - 1
    return jnp.where(done, 0, state), done.astype(jnp.float32), done


@nnx.jit
def rollout(model, rngs, now):
    @nnx.scan(in_axes=(None, nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def step(model, now, key):
        carry, state, done = now
        observation = jax.nn.one_hot(state, STATES)
        carry, logits, value = model(carry, observation, done)
        action = jax.random.categorical(key, logits)
        log_prob = jnp.take_along_axis(nnx.log_softmax(logits), action[:, None], 1)[:, 0]
        state, reward, ended = move(state, action)
        record = {"observation": observation, "done": done, "action": action, "log_prob": log_prob}
        return (carry, state, ended), {**record, "value": value, "reward": reward, "ended": ended}

    return step(model, now, jax.random.split(rngs.action(), STEPS))


def advantages(batch, last_value, discount=0.9, trace=0.8):
    found, advantage, following = [], jnp.zeros(ENVS), last_value
    for i in reversed(range(STEPS)):
        keep = 1.0 - batch["ended"][i]
        delta = batch["reward"][i] + discount * following * keep - batch["value"][i]
        advantage = delta + discount * trace * keep * advantage
        following = batch["value"][i]
        found.append(advantage)
    return jnp.stack(found[::-1])


def loss_fn(model, carry, batch, advantage):
    @nnx.scan(in_axes=(None, nnx.Carry, 0, 0), out_axes=(nnx.Carry, 0, 0))
    def replay(model, carry, observation, done):
        carry, logits, value = model(carry, observation, done)
        return carry, logits, value

    _, logits, value = replay(model, carry, batch["observation"], batch["done"])
    log_probs = nnx.log_softmax(logits)
    log_prob = jnp.take_along_axis(log_probs, batch["action"][..., None], -1)[..., 0]
    ratio = jnp.exp(log_prob - batch["log_prob"])
    normed = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    actor = -jnp.minimum(ratio * normed, jnp.clip(ratio, 0.8, 1.2) * normed).mean()
    critic = ((value - (advantage + batch["value"])) ** 2).mean()
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    return actor + 0.5 * critic - 0.01 * entropy, {"actor": actor, "critic": critic, "entropy": entropy}


@nnx.jit
def update(model, optimizer, carry, batch, advantage):
    (loss, parts), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model, carry, batch, advantage)
    optimizer.update(model, grads)
    return loss, parts


def main():
    model = ActorCritic(rngs=nnx.Rngs(0))
    rngs = nnx.Rngs(action=1)
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2, eps=1e-5))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    now, history = start(), []
    for _ in range(2):
        first = now[0]
        now, batch = rollout(model, rngs, now)
        _, _, last_value = model(now[0], jax.nn.one_hot(now[1], STATES), now[2])
        advantage = advantages(batch, last_value)
        for _ in range(2):
            history.append(update(model, optimizer, first, batch, advantage))
    return [history, batch, nnx.state(model), nnx.state(rngs)]
