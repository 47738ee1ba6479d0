"""The rules for liftnn's layers against PyTorch itself; `make torch` runs these tests."""

from __future__ import annotations

import numpy as np
import pytest

import liftnn
from tests.weights.record_torch import FILE, make_theirs, record, run_theirs
from tests.weights.torch_cases import CASES

torch = pytest.importorskip("torch", reason="`make torch` runs it", exc_type=ImportError)
pytestmark = pytest.mark.torch

SEEDS = range(1, 6)


def tensors_of(module):
    return {name: torch.from_numpy(x) for name, x in liftnn.to_torch(module).items()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", SEEDS)
def test_weights_from_pytorch_give_its_outputs(name, seed):
    case = CASES[name]
    theirs, inputs = make_theirs(torch, name, case, seed), case.inputs(seed)
    ours = case.make_ours(seed)
    liftnn.from_torch(ours, theirs.state_dict())
    expected = run_theirs(torch, theirs, inputs)
    np.testing.assert_allclose(case.run_ours(ours, *inputs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", SEEDS)
def test_weights_to_pytorch_give_liftnns_outputs(name, seed):
    case = CASES[name]
    theirs, ours, inputs = case.theirs(torch.nn).eval(), case.make_ours(seed), case.inputs(seed)
    theirs.load_state_dict(tensors_of(ours), strict=True)
    expected = case.run_ours(ours, *inputs)
    np.testing.assert_allclose(run_theirs(torch, theirs, inputs), expected, rtol=1e-5, atol=1e-5)


def test_the_recorded_tensors_are_those_that_pytorch_gives_now():
    recorded, now = np.load(FILE), record(torch)
    assert sorted(recorded) == sorted(now)
    for key, x in now.items():
        np.testing.assert_allclose(recorded[key], x, rtol=1e-5, atol=1e-5)


def test_batch_norm_trains_as_in_pytorch_up_to_the_kind_of_variance():
    theirs, ours = (
        torch.nn.BatchNorm1d(3, momentum=0.2),
        liftnn.BatchNorm(3, momentum=0.8, rngs=liftnn.Rngs(0)),
    )
    liftnn.from_torch(ours, theirs.state_dict())
    n = 50
    x = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    expected = theirs(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(ours(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.mean.value, theirs.running_mean.numpy(), rtol=1e-5, atol=1e-6)
    observed = (theirs.running_var.numpy() - 0.8) / 0.2  # PyTorch divides by n - 1 here
    np.testing.assert_allclose((ours.var.value - 0.8) / 0.2, observed * (n - 1) / n, rtol=1e-4)
