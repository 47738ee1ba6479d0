"""The PPO example: its environment and advantages against plain loops, and a short run."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.examples.example import PNG_SIGNATURE, imported, run_alone, run_here


@pytest.fixture(scope="module")
def files():
    """The files of the example."""
    with imported("rl") as load:
        yield {name: load(name) for name in ("cartpole", "agent")}


def move_by_hand(state, action):
    """Euler's step, in float64, with both accelerations from the two equations of motion as a linear system.

    The forces along the track are those on the cart and the pole; the torques are those about the pivot of a uniform
    rod of half-length 0.5, whose moment of inertia there is 4/3 m l^2.
    """
    x, v, angle, omega = np.asarray(state, float)
    cart, pole, half, gravity = 1.0, 0.1, 0.5, 9.8
    push = 10.0 if action else -10.0
    system = [[cart + pole, pole * half * np.cos(angle)], [np.cos(angle), half * 4 / 3]]
    forces = [push + pole * half * omega**2 * np.sin(angle), gravity * np.sin(angle)]
    acceleration, alpha = np.linalg.solve(system, forces)
    return np.array([x, v, angle, omega]) + 0.02 * np.array([v, acceleration, omega, alpha])


@pytest.mark.thorough
def test_a_step_solves_the_equations_of_motion(files):
    states = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    actions = np.arange(64) % 2
    moved = jax.vmap(files["cartpole"].move)(states, actions)
    expected = [move_by_hand(state, action) for state, action in zip(states, actions, strict=True)]
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-6)


def balance(state):
    """Push to where the pole falls; this balances it for as long as it is asked to."""
    return int(state[2] + 0.2 * state[3] + 0.02 * state[0] + 0.05 * state[1] > 0)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "policy, out_of_bounds", [(lambda state: 1, True), (balance, False)], ids=["out of bounds", "time is up"]
)
def test_an_episode_ends_out_of_bounds_or_after_500_steps_and_starts_again(files, policy, out_of_bounds):
    environment = files["cartpole"].CartPole(jax.random.key(0))
    step = liftnn.jit(files["cartpole"].CartPole.step)
    for count in range(1, 501):
        state = np.asarray(environment.observation.value)
        moved = step(environment, policy(state))
        expected = move_by_hand(state, policy(state))
        out = abs(expected[0]) > 2.4 or abs(expected[2]) > np.radians(12)
        np.testing.assert_allclose(moved.observation, expected, rtol=1e-4, atol=1e-5)
        assert (int(moved.steps), bool(moved.terminated)) == (count, out)
        assert bool(moved.done) == (out or count == 500)
        if moved.done:
            break
    assert bool(moved.done)
    assert bool(moved.terminated) == out_of_bounds
    assert int(environment.steps.value) == 0
    assert float(jnp.abs(environment.observation.value).max()) <= 0.05


def test_advantages_are_the_discounted_sums_of_errors_up_to_the_end_of_the_episode(files):
    draw = np.random.default_rng(0)
    steps, environments, discount, decay = 12, 5, 0.9, 0.8
    rewards, values, next_values = draw.normal(size=(3, steps, environments)).astype(np.float32)
    done = draw.random((steps, environments)) < 0.3
    terminated = done & (draw.random((steps, environments)) < 0.5)
    assert (done & ~terminated).any()
    assert terminated.any()
    expected = np.zeros((steps, environments))
    for t in range(steps):
        for i in range(environments):
            for later in range(t, steps):
                bootstrap = 0.0 if terminated[later, i] else discount * next_values[later, i]
                error = rewards[later, i] + bootstrap - values[later, i]
                expected[t, i] += (discount * decay) ** (later - t) * error
                if done[later, i]:
                    break
    found = files["agent"].advantages_of(
        rewards, values, next_values, terminated, done, discount=discount, decay=decay
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_the_loss_is_that_of_the_paper(files):
    agent = files["agent"].Agent(rngs=liftnn.Rngs(0))
    draw = np.random.default_rng(0)
    observations = draw.normal(size=(16, 4)).astype(np.float32)
    actions = draw.integers(2, size=16)
    old, advantages, returns = draw.normal(size=(3, 16)).astype(np.float32)
    old = old / 4 - 0.7
    log_p = np.asarray(agent.log_probabilities(observations))
    scaled = (advantages - advantages.mean()) / advantages.std()
    gains, entropies = [], []
    for i in range(16):
        ratio = np.exp(log_p[i, actions[i]] - old[i])
        clipped = min(max(ratio, 0.8), 1.2)
        gains.append(min(ratio * scaled[i], clipped * scaled[i]))
        entropies.append(-sum(np.exp(x) * x for x in log_p[i]))
    errors = (np.asarray(agent.values(observations)) - returns) ** 2
    expected = 0.5 * errors.mean() - np.mean(gains) - 0.01 * np.mean(entropies)
    batch = files["agent"].Batch(*map(jnp.asarray, (observations, actions, old, advantages, returns)))
    np.testing.assert_allclose(files["agent"].loss_fn(agent, batch), expected, rtol=1e-5)


@pytest.mark.thorough
def test_a_short_run_prints_its_updates_and_the_return_of_new_episodes_and_draws_a_picture(tmp_path):
    options = ("--updates", 4, "--environments", 4, "--steps", 16, "--output", tmp_path)
    code, out, err = run_here("rl", *options)
    assert (code, err) == (0, "")
    start, *updates, plot, result = out.splitlines()
    assert start == "9,155 parameters, 4 environments, seed 0, cpu"
    for i, line in enumerate(updates, 1):
        assert re.fullmatch(rf"update {i}/4: {64 * i} steps, return (\d+\.\d|nan), [\d,]+ steps/s", line)
    assert len(updates) == 4
    assert plot == f"plot: {tmp_path / 'returns.png'}"
    assert re.fullmatch(r"return of 100 new episodes: mean \d+\.\d, least \d+", result)
    assert (tmp_path / "returns.png").read_bytes().startswith(PNG_SIGNATURE)


@pytest.mark.thorough
def test_the_pole_is_balanced_after_200_000_steps(tmp_path):
    code, out, err = run_alone("rl", "--updates", 50, "--output", tmp_path)
    assert (code, err) == (0, "")
    mean = re.search(r"return of 100 new episodes: mean (\S+),", out)[1]
    assert float(mean) > 400


@pytest.mark.parametrize(
    "options, message",
    [
        (["--updates", "0"], "argument --updates: '0' is not a whole number from 1 on"),
        (["--updates", "11"], "argument --updates: 11 is neither at most 10 nor a multiple of 10"),
        (
            ["--steps", "5", "--environments", "3"],
            "argument --steps: 5 steps of 3 environments cannot be divided into 4 minibatches",
        ),
        (["--lr", "0"], "argument --learning-rate/--lr: '0' is not a number above 0"),
        (["--output", __file__], f"argument --output: cannot make the folder {__file__} (File exists)"),
    ],
)
def test_a_wrong_option_is_named_with_exit_code_2(options, message):
    code, out, err = run_here("rl", *options)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == f"train.py: error: {message}"
