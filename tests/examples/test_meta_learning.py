"""The MAML example: its meta-gradient against JAX by hand, its tasks, and a short run."""

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
    with imported("meta_learning") as load:
        yield {name: load(name) for name in ("tasks", "train")}


@pytest.fixture(scope="module")
def drawn(files):
    """A model, some tasks, and its parameters as a list of (kernel, bias)."""
    model = files["train"].Net(rngs=liftnn.Rngs(0))
    layers = [layer for layer in model.layers.layers if isinstance(layer, liftnn.Linear)]
    params = [(layer.kernel.value, layer.bias.value) for layer in layers]
    return model, files["tasks"].draw_tasks(liftnn.Rngs(1), 4, 10), params


def predict_by_hand(params, x):
    *hidden, (kernel, bias) = params
    for w, b in hidden:
        x = jnp.maximum(x @ w + b, 0)
    return x @ kernel + bias


def loss_by_hand(params, x, y):
    return jnp.mean((predict_by_hand(params, x) - y) ** 2)


def adapt_by_hand(params, x, y, steps):
    for _ in range(steps):
        grads = jax.grad(loss_by_hand)(params, x, y)
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, grads)
    return params


def meta_loss_by_hand(params, tasks, steps):
    losses = []
    for i in range(len(tasks.amplitude)):
        support, query = ((points.x[i], points.y[i]) for points in (tasks.support, tasks.query))
        losses.append(loss_by_hand(adapt_by_hand(params, *support, steps), *query))
    return sum(losses) / len(losses)


@pytest.mark.thorough
@pytest.mark.parametrize("steps", [0, 1, pytest.param(5, marks=pytest.mark.thorough)])
def test_the_meta_gradient_is_that_of_jax_by_hand(files, drawn, steps):
    model, tasks, params = drawn
    step = liftnn.jit(
        lambda model, tasks: liftnn.value_and_grad(files["train"].meta_loss)(model, tasks, steps)
    )
    loss, grads = step(model, tasks)
    expected_loss, expected = jax.jit(jax.value_and_grad(lambda p: meta_loss_by_hand(p, tasks, steps)))(
        params
    )
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    layers = [grads["layers"]["layers"][i] for i in (0, 2, 4)]
    found = [(layer["kernel"].value, layer["bias"].value) for layer in layers]
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.thorough
def test_the_inner_loop_leaves_the_model_as_it_was(files, drawn):
    model, tasks, _ = drawn
    before = liftnn.clone(model)
    task = jax.tree.map(lambda x: x[0], tasks)
    learner = files["train"].adapt(model, task.support, 1)
    pairs = zip(*(jax.tree.leaves(liftnn.state(x)) for x in (model, before, learner)), strict=True)
    assert all((a == b).all() and (a != c).any() for a, b, c in pairs)


@pytest.mark.thorough
def test_errors_on_new_tasks_are_those_of_training_on_each_by_hand(files, drawn):
    model, tasks, params = drawn
    expected = []
    for steps in (0, 1, 2):
        expected.append(jax.jit(lambda p, n=steps: meta_loss_by_hand(p, tasks, n))(params))
    np.testing.assert_allclose(files["train"].evaluate(model, tasks)[:3], expected, rtol=1e-5)


def test_points_lie_on_the_sine_of_their_task(drawn):
    _, tasks, _ = drawn
    for points in (tasks.support, tasks.query):
        assert points.x.shape == points.y.shape == (4, 10, 1)
        expected = np.asarray(tasks.amplitude) * np.sin(np.asarray(points.x) - np.asarray(tasks.phase))
        np.testing.assert_allclose(points.y, expected, rtol=1e-4, atol=1e-5)
        assert (np.abs(points.x) <= 5).all()
    assert ((tasks.amplitude >= 0.1) & (tasks.amplitude <= 5)).all()
    assert ((tasks.phase >= 0) & (tasks.phase <= np.pi)).all()
    assert not (tasks.support.x == tasks.query.x).any()


@pytest.mark.thorough
def test_a_short_run_prints_losses_and_errors_and_draws_a_picture(tmp_path):
    options = ("--updates", 2, "--tasks", 3, "--output", tmp_path)
    code, out, err = run_here("meta_learning", *options)
    assert (code, err) == (0, "")
    start, *lines, plot = out.splitlines()
    assert start == "3 tasks of 10 points an update, seed 0, cpu"
    number = r"\d+\.\d+"
    expected = [
        pattern
        for name in ("MAML", "without meta-learning")
        for pattern in (
            rf"{name}: update 1/2, loss {number}, {number} s",
            rf"{name}: update 2/2, loss {number}, {number} s",
            rf"{name}: error {number} after 0, {number} after 1, {number} after 5 steps",
        )
    ]
    assert len(lines) == len(expected)
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(expected, lines, strict=True))
    assert plot == f"plot: {tmp_path / 'sines.png'}"
    assert (tmp_path / "sines.png").read_bytes().startswith(PNG_SIGNATURE)


@pytest.mark.thorough
def test_one_step_helps_more_after_meta_learning(tmp_path):
    code, out, err = run_alone("meta_learning", "--updates", 2000, "--output", tmp_path)
    assert (code, err) == (0, "")
    errors = re.findall(r"error (\S+) after 0, (\S+) after 1, (\S+) after 5 steps", out)
    maml, without = (tuple(map(float, x)) for x in errors)
    assert maml[1] < 0.7 * maml[0]
    assert maml[1] < 0.7 * without[1]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--updates", "25"], "argument --updates: 25 is neither at most 10 nor a multiple of 10"),
        (["--inner-steps", "0"], "argument --inner-steps: '0' is not a whole number from 1 on"),
        (["--lr", "inf"], "argument --learning-rate/--lr: 'inf' is not a number above 0"),
    ],
)
def test_a_wrong_option_is_named_with_exit_code_2(options, message):
    code, out, err = run_here("meta_learning", *options)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == f"train.py: error: {message}"
