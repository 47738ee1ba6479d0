"""The task: which of ten vowels is it? The clips are made by a formula, so that nothing is downloaded.

A vowel is told by the resonances of the vocal tract, the formants. Those of `FORMANTS` are the means over 33 men that
Peterson and Barney measured (Control Methods Used in a Study of the Vowels, JASA 24, 1952). Each clip has another
speaker: another length of the vocal tract, another pitch, another loudness, and noise.
"""

from typing import NamedTuple

import numpy as np

RATE = 16_000
CHUNK = 512
"""Samples that the network reads at once."""

FORMANTS = {
    "heed": (270, 2290, 3010),
    "hid": (390, 1990, 2550),
    "head": (530, 1840, 2480),
    "had": (660, 1720, 2410),
    "hod": (730, 1090, 2440),
    "hawed": (570, 840, 2410),
    "hood": (440, 1020, 2240),
    "who'd": (300, 870, 2240),
    "hud": (640, 1190, 2390),
    "heard": (490, 1350, 1690),
}
"""The first three resonances, in hertz, of the vowel of each word."""
WORDS = tuple(FORMANTS)
WIDTHS = np.array([60.0, 90.0, 150.0])
HARMONICS = 40


class Clips(NamedTuple):
    """Sounds of shape (n, samples), float32, between -1 and 1, and the numbers of their vowels, of shape (n,)."""

    samples: np.ndarray
    labels: np.ndarray


def make(count: int, chunks: int, seed: int) -> Clips:
    """Returns clips with the vowels in turn.

    Args:
      count: the number of clips.
      chunks: the length of each, in chunks of 512 samples.
      seed: decides the speakers and the noise.
    """
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % len(WORDS)
    table = np.array(list(FORMANTS.values()), float)
    tract = random.uniform(
        0.92, 1.25, size=(count, 1)
    )  # shorter tracts, of women and children, resonate higher
    formants = table[labels] * tract * random.normal(1, 0.04, size=(count, 3))
    sounds = np.concatenate(
        [speak(random, part, chunks * CHUNK) for part in np.array_split(formants, max(1, count // 50))]
    )
    noise = random.normal(size=sounds.shape) * random.uniform(0.003, 0.03, size=(count, 1))
    return Clips(np.clip(sounds + noise, -1, 1).astype(np.float32), labels)


def speak(random: np.random.Generator, formants: np.ndarray, length: int) -> np.ndarray:
    """Returns voices with these formants, of shape (n, 3), in sounds of shape (n, length).

    A voice is a sum of harmonics, which grow weaker as glottal pulses have it, times what the tract lets through.
    """
    count = len(formants)
    time = np.arange(length) / RATE
    pitch = random.uniform(90, 260, size=(count, 1)) * (1 + random.uniform(-0.3, 0.3, size=(count, 1)) * time)
    phase = 2 * np.pi * np.cumsum(pitch, axis=1) / RATE
    sounds = np.zeros((count, length))
    for k in range(1, HARMONICS + 1):
        frequency = k * pitch.mean(axis=1)
        strength = np.where(frequency < 0.45 * RATE, resonance(frequency, formants) / k, 0)
        sounds += strength[:, None] * np.sin(k * phase + random.uniform(0, 2 * np.pi, size=(count, 1)))
    loudness = random.uniform(0.03, 0.3, size=(count, 1)) / np.sqrt((sounds**2).mean(axis=1, keepdims=True))
    fade = np.minimum(1, 20 * np.minimum(time, time[::-1]))
    return sounds * loudness * fade


def resonance(frequency: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Returns the gain of resonators in a row at one frequency for each clip: of shape (n,)."""
    f = frequency[:, None]
    return (formants**2 / np.hypot(formants**2 - f**2, WIDTHS * f)).prod(axis=1)
