"""Series by a formula: hourly loads with a day, a week, a slow drift and noise that has a memory."""

from typing import NamedTuple

import numpy as np

DAY, WEEK = 24, 7 * 24
MEMORY = 0.9
"""How much of the noise of one hour is left in the next one."""


class Series(NamedTuple):
    """Many series of the same length.

    Args:
      values: of shape (series, hours), float32, each with a mean near 0 and a deviation near 1.
      features: what is known in advance of each hour, of shape (series, hours, 5): the hour of the day and the day of
        the week as points on circles, and the value of a week before.
      noiseless: the values without noise, of shape (series, hours).
    """

    values: np.ndarray
    features: np.ndarray
    noiseless: np.ndarray


def make(count: int, hours: int, seed: int) -> Series:
    """Returns series that differ in the shape of the day, in the week, in the drift, and in where they start.

    Each is  day(t) * (1 + week(t)) + drift(t) + noise(t):  the day is a sum of three waves with random amplitudes and
    phases, the weekend is lower, the drift is a slow wave, and the noise is autoregressive of order one.

    Args:
      count: the number of series.
      hours: the length of each.
      seed: decides everything.
    """
    random = np.random.default_rng(seed)
    start = random.integers(WEEK, size=(count, 1))
    time = start + np.arange(WEEK + hours)
    waves = np.arange(1, 4)
    amplitudes = random.uniform(0.3, 1.0, size=(count, 3, 1)) / waves[:, None]
    phases = random.uniform(0, 2 * np.pi, size=(count, 3, 1))
    day = (amplitudes * np.sin(2 * np.pi * waves[:, None] * time[:, None] / DAY + phases)).sum(1)
    weekend = time // DAY % 7 >= 5
    week = np.where(weekend, -random.uniform(0.3, 0.9, size=(count, 1)), 0.0)
    period = random.uniform(20, 60, size=(count, 1)) * DAY
    drift = 0.5 * np.sin(2 * np.pi * time / period + random.uniform(0, 2 * np.pi, size=(count, 1)))
    noiseless = day * (1 + week) + drift + week
    values = (noiseless + autoregressive(random, time.shape)).astype(np.float32)
    features = np.concatenate([circles(time[:, WEEK:]), values[:, :-WEEK, None]], axis=-1)
    return Series(values[:, WEEK:], features, noiseless[:, WEEK:].astype(np.float32))


def autoregressive(random: np.random.Generator, shape: tuple[int, int], deviation: float = 0.2) -> np.ndarray:
    """Returns noise of a constant deviation in which each value holds on to a part of the one before."""
    shocks = random.normal(scale=deviation, size=shape)
    shocks[:, 1:] *= np.sqrt(1 - MEMORY**2)
    for t in range(1, shape[1]):
        shocks[:, t] += MEMORY * shocks[:, t - 1]
    return shocks


def circles(time: np.ndarray) -> np.ndarray:
    """Returns the hour of the day and the day of the week as sines and cosines, of shape (*time.shape, 4)."""
    angles = 2 * np.pi * np.stack([time % DAY / DAY, time // DAY % 7 / 7], axis=-1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32)
