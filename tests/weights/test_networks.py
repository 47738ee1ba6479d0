"""Networks with weights from PyPI packages compute what the packages compute, within 1e-5."""

from __future__ import annotations

import numpy as np
import pytest

import liftnn
from tests.weights.networks import SILERO_ONNX, SILERO_SAFETENSORS, SileroVAD, find

CHUNKS = 20


def signal(seed, n):
    """Tones with noise, louder and softer, between -1 and 1, of shape (2, n)."""
    random, t = np.random.default_rng(seed), np.arange(n) / 16000
    pitch = 120 + 60 * np.sin(2 * np.pi * 3 * t)
    voice = sum(np.sin(2 * np.pi * k * np.cumsum(pitch) / 16000) / k for k in range(1, 12))
    loud = np.clip(np.sin(2 * np.pi * 2 * t), 0, 1) * 0.3
    noise = random.normal(size=(2, n)) * np.array([[0.01], [0.1]])
    return (loud * voice + noise).astype(np.float32)


def probabilities_of_onnx(file, chunks):
    """What an ONNX file of the package computes, with the context and the state that its wrapper keeps."""
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    state, context, outputs = np.zeros((2, 2, 128), np.float32), np.zeros((2, 64), np.float32), []
    for chunk in chunks:
        x = np.concatenate([context, chunk], axis=1)
        output, state = session.run(None, {"input": x, "state": state, "sr": np.array(16000)})
        context = x[:, -64:]
        outputs.append(output[:, 0])
    return np.stack(outputs)


def test_silero_vad_computes_what_its_onnx_file_computes():
    file = find("silero-vad", "silero_vad/data/silero_vad_16k_op15.onnx")
    onnx = pytest.importorskip("onnx")
    tensors = {x.name: onnx.numpy_helper.to_array(x) for x in onnx.load(file).graph.initializer}
    model = SileroVAD(2, liftnn.Rngs(0))
    assert not liftnn.from_torch(model, tensors, SILERO_ONNX)
    chunks = np.split(signal(0, 512 * CHUNKS), CHUNKS, axis=1)
    probability = liftnn.jit(lambda model, chunk: model(chunk))
    ours = np.stack([probability(model, chunk) for chunk in chunks])
    expected = probabilities_of_onnx(file, chunks)
    assert expected.min() < 0.1
    assert expected.max() > 0.5
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_a_safetensors_file_is_written_as_it_was_read_up_to_the_sum_of_biases():
    safetensors = pytest.importorskip("safetensors.numpy")
    file = find("silero-vad", "silero_vad/data/silero_vad_16k.safetensors")
    model, theirs = SileroVAD(2, liftnn.Rngs(0)), safetensors.load_file(file)
    assert not liftnn.from_torch(model, file, SILERO_SAFETENSORS)
    written = liftnn.to_torch(model, SILERO_SAFETENSORS)
    assert sorted(written) == sorted(theirs)
    theirs["lstm_cell.bias_ih"] += theirs["lstm_cell.bias_hh"]
    theirs["lstm_cell.bias_hh"] *= 0
    for name, x in written.items():
        np.testing.assert_array_equal(x, theirs[name])
