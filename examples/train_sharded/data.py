"""Text that is on every machine: the source code of Python's standard library, as bytes, read at random with grain."""

import math
import sysconfig
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np

SKIPPED = ("site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__")


class Windows:
    """Pieces of a text, as grain reads them: one for each multiple of the length, with one byte more.

    Args:
      text: The text, uint8[bytes].
      length: The number of bytes that a piece has to predict.
    """

    def __init__(self, text: np.ndarray, length: int) -> None:
        self.text, self.length = text, length

    def __len__(self) -> int:
        return (len(self.text) - 1) // self.length

    def __getitem__(self, index: int) -> np.ndarray:
        start = index * self.length
        return self.text[start : start + self.length + 1].astype(np.int32)


class Batches:
    """The batch of each step: any process reads any row by its number, so that only the step has to be remembered.

    Row `i` of step `s` is number `s * batch + i` of an endless shuffled sequence.

    Args:
      shape: The shape of a batch: micro-batches, rows in each, bytes in a row.
      seed: For the order of the rows.
    """

    def __init__(self, shape: tuple[int, int, int], seed: int) -> None:
        self.shape = (*shape[:2], shape[2] + 1)
        self.rows = grain.MapDataset.source(Windows(read_text(), shape[2])).shuffle(seed).repeat()

    def read(self, step: int, sharding: jax.sharding.Sharding) -> jax.Array:
        """The batch of a step as one array over all processes, of which each reads only its own rows."""
        count = math.prod(self.shape[:2])
        numbers = np.arange(step * count, (step + 1) * count).reshape(self.shape[:2])

        def part(index: Any) -> np.ndarray:
            wanted = numbers[index[:2]]
            rows = np.stack([np.asarray(self.rows[int(number)]) for number in wanted.flat])
            return rows.reshape(*wanted.shape, -1)[..., index[2]]

        return jax.make_array_from_callback(self.shape, sharding, part)


def read_text() -> np.ndarray:
    """The source files of the standard library, one after the other."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(file for file in folder.rglob("*.py") if not set(SKIPPED) & set(file.parts))
    return np.frombuffer(b"\n".join(file.read_bytes() for file in files), np.uint8)
