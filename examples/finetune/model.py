"""The network of silero-vad, which finds speech in sound, with a new head for another task."""

import importlib.metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import liftnn as nnx
from data import CHUNK

Array = jax.Array | np.ndarray
CONTEXT = 64
"""Samples of the chunk before that the network reads again."""
FEATURES = 128
PACKAGE = "silero-vad==6.2.3"
WEIGHTS = "silero_vad/data/silero_vad_16k.safetensors"
NAMES = [
    ("^stft", "stft_conv"),
    (r"^encoder\.(\d)", lambda match: f"conv{int(match[1]) + 1}"),
    ("^rnn", "lstm_cell"),
    ("^output", "final_conv"),
]
"""How the names of the tensors in the file follow from the paths of the module."""


class SileroVAD(nnx.Module):
    """A Fourier transform as a convolution, four convolutions, an LSTM, and the probability of speech."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stft = nnx.Conv(1, 258, 256, strides=128, padding=0, use_bias=False, rngs=rngs)
        self.encoder = [
            nnx.Conv(n, m, 3, strides=strides, padding=1, rngs=rngs)
            for n, m, strides in ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, FEATURES, 1))
        ]
        self.rnn = nnx.OptimizedLSTMCell(FEATURES, FEATURES, rngs=rngs)
        self.output = nnx.Conv(FEATURES, 1, 1, rngs=rngs)

    def __call__(self, samples: Array) -> jax.Array:
        """From sounds of shape (n, chunks * 512) to features of shape (n, chunks, 128)."""
        count, length = samples.shape
        known = jnp.pad(samples, ((0, 0), (CONTEXT, 0)))
        starts = CHUNK * np.arange(length // CHUNK)
        chunks = known[:, starts[:, None] + np.arange(CONTEXT + CHUNK)].reshape(-1, CONTEXT + CHUNK)
        x = self.stft(jnp.pad(chunks, ((0, 0), (0, CONTEXT)), mode="reflect")[..., None])
        x = jnp.hypot(x[..., :129], x[..., 129:])
        for layer in self.encoder:
            x = nnx.relu(layer(x))
        zeros = jnp.zeros((count, FEATURES))
        scan = nnx.scan(self.rnn, in_axes=(nnx.Carry, 1), out_axes=(nnx.Carry, 1))
        return scan((zeros, zeros), x.reshape(count, -1, FEATURES))[1]

    def speech(self, samples: Array) -> jax.Array:
        """The probability of speech in each chunk, of shape (n, chunks)."""
        return nnx.sigmoid(self.output(nnx.relu(self(samples))))[..., 0]


class Classifier(nnx.Module):
    """The backbone, and a linear head over the mean of its features."""

    def __init__(self, backbone: SileroVAD, classes: int, *, rngs: nnx.Rngs) -> None:
        self.backbone = backbone
        self.head = nnx.Linear(FEATURES, classes, rngs=rngs)

    def __call__(self, samples: Array) -> jax.Array:
        """From sounds of shape (n, chunks * 512) to logits of shape (n, classes)."""
        return self.head(self.backbone(samples).mean(axis=1))


class WeightsError(Exception):
    """The weights cannot be loaded; the message is one line that says why and what to do."""


def load(backbone: SileroVAD, file: Path | None) -> None:
    """Fills the network with the package's weights.

    Args:
      backbone: the network.
      file: where the weights are; None means in the installed package.

    Raises:
      WeightsError: if the package is not installed, or the file cannot be read or is another.
    """
    try:
        path = file or Path(str(importlib.metadata.distribution("silero-vad").locate_file(WEIGHTS)))
        nnx.from_torch(backbone, path, NAMES)
    except importlib.metadata.PackageNotFoundError:
        raise WeightsError(
            f"silero-vad is not installed; install it, without PyTorch, by: pip install --no-deps {PACKAGE}"
        ) from None
    except nnx.CheckpointError as error:
        raise WeightsError(" ".join(str(error).split())) from None
