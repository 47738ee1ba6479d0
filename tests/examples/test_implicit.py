"""The example of an implicit layer: its gradient against unrolled JAX by hand, its memory, and a short run."""

from __future__ import annotations

import functools
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
    with imported("implicit") as load:
        yield {name: load(name) for name in ("solvers", "model", "train")}


class Step(liftnn.Module):
    """A step with a known formula, which counts its calls."""

    def __init__(self):
        draw = np.random.default_rng(0)
        self.w = liftnn.Param(jnp.asarray(draw.normal(size=(5, 5)) / 5, jnp.float32))
        self.calls = liftnn.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, z, x):
        self.calls.value = self.calls + 1
        return jnp.tanh(z @ self.w.value + x)


def unrolled_by_hand(w, x):
    z = jnp.zeros_like(x)
    for _ in range(60):
        z = jnp.tanh(z @ w + x)
    return (z**2).sum()


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["fixed_point", pytest.param("iterate", marks=pytest.mark.thorough)])
def test_value_and_gradients_are_those_of_unrolled_jax_by_hand(files, name):
    search = {
        "fixed_point": functools.partial(files["solvers"].fixed_point, tolerance=1e-6),
        "iterate": functools.partial(files["solvers"].iterate, steps=60),
    }[name](Step.__call__)
    module, x = Step(), jnp.asarray(np.random.default_rng(1).normal(size=(3, 5)), jnp.float32)

    def loss(module, x):
        z, steps = search(module, jnp.zeros_like(x), x)
        return (z**2).sum(), steps

    wrt = (liftnn.DiffState(0, liftnn.Param), 1)
    (found, steps), grads = liftnn.jit(liftnn.value_and_grad(loss, wrt, has_aux=True))(module, x)
    expected, by_hand = jax.jit(jax.value_and_grad(unrolled_by_hand, (0, 1)))(module.w.value, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(grads[0]["w"].value, by_hand[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(grads[1], by_hand[1], rtol=1e-3, atol=1e-4)
    assert 5 < int(steps) <= 60
    assert int(module.calls.value) == 1


@pytest.mark.thorough
def test_the_gradients_of_the_model_are_those_of_160_unrolled_steps(files):
    train, solvers = files["train"], files["solvers"]
    x, labels = train.draw_spirals(liftnn.Rngs(1), 32)
    found = []
    for find in (
        functools.partial(solvers.fixed_point, tolerance=1e-6),
        functools.partial(solvers.iterate, steps=160),
    ):
        model = files["model"].Classifier(8, find=find, rngs=liftnn.Rngs(0))
        grads = liftnn.jit(liftnn.grad(train.loss_fn))(model, x, labels)
        found.append((jax.tree.leaves(grads), liftnn.state(model, liftnn.BatchStat)))
    (implicit, stats), (unrolled, same) = found
    scale = max(float(jnp.abs(x).max()) for x in unrolled)
    for a, b in zip(implicit, unrolled, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3 * scale)
    for a, b in zip(jax.tree.leaves(stats), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_the_output_is_a_fixed_point_of_the_step_that_by_hand_is_found_too(files):
    layer = files["model"].Equilibrium(2, 8, rngs=liftnn.Rngs(0))
    layer.eval()
    x = liftnn.Rngs(1).normal((4, 2))
    z = liftnn.jit(layer)(x)
    layer.recurrent(jnp.zeros((1, 8)))  # writes the normalized weights
    w = np.asarray(layer.recurrent.layer_instance.kernel.value, float)
    assert np.linalg.svd(w, compute_uv=False).max() < 1.1
    kernel, bias = (np.asarray(p.value, float) for p in (layer.inject.kernel, layer.inject.bias))
    expected = np.zeros((4, 8))
    for _ in range(300):
        expected = np.tanh(0.9 * expected @ w + np.asarray(x) @ kernel + bias)
    np.testing.assert_allclose(z, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.thorough
def test_a_short_run_prints_its_updates_memory_and_accuracy_and_draws_a_picture(tmp_path):
    options = ("--updates", 2, "--batch-size", 64, "--width", 8, "--output", tmp_path)
    code, out, err = run_here("implicit", *options)
    assert (code, err) == (0, "")
    start, *updates, memory, plot, accuracy = out.splitlines()
    assert start == "97 parameters, seed 0, cpu"
    for i, line in enumerate(updates, 1):
        pattern = rf"update {i}/2: loss \d\.\d{{4}}, \d+ steps to the fixed point, \d+\.\d s"
        assert re.fullmatch(pattern, line)
    assert len(updates) == 2
    number = r"(\d+\.\d\d)"
    depths = ", ".join(f"{number} MB through {n}" for n in (10, 40, 160))
    sizes = re.fullmatch(rf"memory of a training step: {number} MB implicit, {depths} steps", memory)
    implicit, *unrolled = map(float, sizes.groups())
    assert unrolled == sorted(unrolled)
    assert implicit < unrolled[1]
    assert plot == f"plot: {tmp_path / 'spirals.png'}"
    assert re.fullmatch(r"accuracy on 2,000 new points: [01]\.\d{4}", accuracy)
    assert (tmp_path / "spirals.png").read_bytes().startswith(PNG_SIGNATURE)


@pytest.mark.thorough
def test_the_spirals_are_told_apart_after_400_updates(tmp_path):
    code, out, err = run_alone("implicit", "--updates", 400, "--output", tmp_path)
    assert (code, err) == (0, "")
    assert float(out.split()[-1]) > 0.9


@pytest.mark.parametrize(
    "options, message",
    [
        (["--updates", "25"], "argument --updates: 25 is neither at most 10 nor a multiple of 10"),
        (["--width", "no"], "argument --width: 'no' is not a whole number from 1 on"),
    ],
)
def test_a_wrong_option_is_named_with_exit_code_2(options, message):
    code, out, err = run_here("implicit", *options)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == f"train.py: error: {message}"
