"""The fine-tuning example: its output, its network against ONNX Runtime, its adapters, and what stays frozen."""

from __future__ import annotations

import importlib.metadata
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

import liftnn
from tests.examples.example import PNG_SIGNATURE, imported, match, run_here
from tests.weights.networks import SILERO_ONNX, find
from tests.weights.test_networks import probabilities_of_onnx, signal

SMALL = ("--clips", 20, "--test-clips", 20, "--batch-size", 10, "--chunks", 2, "--steps", 2)


@pytest.fixture(scope="module")
def example():
    with imported("finetune") as load:
        yield {name: load(name) for name in ("data", "lora", "model", "train")}


@pytest.fixture(scope="module")
def network(example):
    """The network with random weights, which nobody changes."""
    return example["model"].SileroVAD(rngs=liftnn.Rngs(0))


@pytest.fixture
def options():
    return type("Options", (), {"seed": 0, "rank": 2, "steps": 2, "batch_size": 10})


def values_of(model, *filters):
    return {path: np.asarray(x.value) for path, x in liftnn.state(model, *filters).flat().items()}


@pytest.mark.thorough
def test_a_short_run_prints_what_each_way_of_training_reached_and_saves_what_it_trained(tmp_path):
    find("silero-vad", "silero_vad/data/silero_vad_16k.safetensors")
    result = run_here("finetune", *SMALL, "--output", tmp_path)

    assert (result.returncode, result.stderr) == (0, "")
    lines = [line for line in result.stdout.splitlines() if " clips/s" not in line]
    end = r"weights trained, test accuracy \d\.\d{3}, {}.safetensors [\d,]+ kB, \d+\.\d s"
    ways = {
        "head": r"head only: 1,290 ", "lora": r"LoRA and head: ([\d,]+) ",
        "full": r"all weights: 244,234 ", "scratch": r"all, from random weights: 244,234 ",
    }  # fmt: skip
    head, lora, full, scratch = (start + end.replace("{}", name) for name, start in ways.items())
    patterns = [
        "silero-vad, 309,121 weights; the speech that it hears in a clip, on average:",
        r"  vowels (\d\.\d\d), noise (\d\.\d\d)",
        head,
        lora,
        r"  folded into the weights of the network, the logits differ by \de-\d\d",
        full,
        scratch,
        f"plot: {tmp_path / 'accuracy.png'}",
        r"finished in \d+ s",
    ]
    found = match(patterns, lines)
    assert float(found[1][0]) > float(found[1][1]) + 0.3
    assert (tmp_path / "accuracy.png").read_bytes().startswith(PNG_SIGNATURE)
    assert {x.name for x in tmp_path.glob("*.safetensors")} == {f"{name}.safetensors" for name in ways}


@pytest.mark.thorough
def test_the_network_computes_the_probabilities_that_onnx_runtime_computes(example, network):
    file = find("silero-vad", "silero_vad/data/silero_vad_16k_op15.onnx")
    onnx = pytest.importorskip("onnx")
    tensors = {x.name: onnx.numpy_helper.to_array(x) for x in onnx.load(file).graph.initializer}
    model = liftnn.clone(network)
    assert not liftnn.from_torch(model, tensors, SILERO_ONNX)
    samples = signal(0, 512 * 10)
    expected = probabilities_of_onnx(file, np.split(samples, 10, axis=1)).T
    np.testing.assert_allclose(liftnn.jit(model.speech)(samples), expected, rtol=0, atol=1e-5)


@pytest.mark.thorough
def test_new_adapters_change_nothing_and_folded_ones_compute_the_same(example, network):
    samples = signal(1, 512 * 3)
    adapted = example["lora"].adapt(network, 2, rngs=liftnn.Rngs(1))
    before = network(samples)
    np.testing.assert_array_equal(adapted(samples), before)

    random = np.random.default_rng(0)
    adapters = liftnn.state(adapted, liftnn.LoRAParam)
    liftnn.update(
        adapted, jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), x.dtype), adapters)
    )
    changed = adapted(samples)
    folded = example["lora"].fold(adapted)

    assert abs(changed - before).max() > 1e-2
    np.testing.assert_allclose(folded(samples), changed, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(network(samples), before)
    np.testing.assert_array_equal(adapted(samples), changed)
    assert liftnn.state(folded).flat().keys() == liftnn.state(network).flat().keys()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name, layers",
    [
        ("head", {"head"}),
        pytest.param("lora", {"encoder", "rnn", "head"}, marks=pytest.mark.thorough),
        pytest.param("full", {"encoder", "rnn", "head"}, marks=pytest.mark.thorough),
    ],
)
def test_what_is_frozen_stays_and_what_was_trained_is_saved_and_loaded(
    example, network, options, tmp_path, name, layers
):
    train, data = example["train"], example["data"]
    clips = data.make(20, 2, 0)
    model, way = train.create(name, network, options), train.WAYS[name]
    before, trained = values_of(model), values_of(model, way.trained)
    train.train(model, way, clips, clips, options)
    after = values_of(model)

    changed = {path for path, x in after.items() if not np.array_equal(x, before[path])}
    assert changed == trained.keys()
    assert {name for path in changed for name in path if name in ("encoder", "rnn", "head", "stft")} == layers
    assert all(
        (path[-1] in ("lora_a", "lora_b")) == (name == "lora") for path in changed if "head" not in path
    )

    file = tmp_path / "trained.safetensors"
    liftnn.save_weights(file, model, way.trained)
    fresh = train.create(name, network, type("Options", (), {"seed": 7, "rank": 2}))
    assert not liftnn.load_weights(file, fresh, only=way.trained)
    np.testing.assert_array_equal(fresh(clips.samples), model(clips.samples))


def test_the_gain_of_the_vocal_tract_is_that_of_its_filters(example):
    data = example["data"]
    formants, frequency = np.array([[500.0, 1500.0, 2500.0]]), np.array([620.0])
    gain = 1.0
    for f, width in zip(formants[0], data.WIDTHS, strict=True):
        pole, band = 2 * np.pi * f, 2 * np.pi * width
        _, response = scipy.signal.freqs([pole**2], [1, band, pole**2], worN=[2 * np.pi * frequency[0]])
        gain *= abs(response[0])
    np.testing.assert_allclose(data.resonance(frequency, formants), gain)


def test_a_package_that_is_not_installed_is_one_line_and_exit_code_2(monkeypatch, tmp_path):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    result = run_here("finetune", *SMALL, "--output", tmp_path)
    remedy = "install it, without PyTorch, by: pip install --no-deps silero-vad==6.2.3"
    assert result == (2, "", f"train.py: error: silero-vad is not installed; {remedy}\n")


def test_a_file_with_other_weights_is_one_line_and_exit_code_2(tmp_path):
    file = tmp_path / "other.safetensors"
    liftnn.save_weights(file, liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))
    result = run_here("finetune", *SMALL, "--weights", file, "--output", tmp_path)

    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"train\.py: error: .*does not fit the module.*\n", result.stderr)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--rank", "0"], "argument --rank: '0' is not a whole number from 1 on"),
        (["--clips", "20"], "argument --batch-size: 50 is more than --clips 20"),
        (["--output", __file__], f"argument --output: cannot make the folder {__file__} (File exists)"),
    ],
)
def test_a_wrong_option_is_named_with_exit_code_2(options, message):
    result = run_here("finetune", *options)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"train.py: error: {message}"
