"""Text that is on every machine: the source code of Python's standard library, as a sequence of characters."""

import sysconfig
from pathlib import Path
from typing import NamedTuple

import numpy as np

SKIPPED = ("site-packages", "test", "tests", "idlelib", "lib2to3", "encodings", "__pycache__")
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""The characters of a token, by its number: those of ASCII that are printed. Others become question marks."""
HELD_OUT = 20
"""One file of so many is held out: the model is tested on files that it has never seen."""

NUMBERS = np.full(256, ALPHABET.index("?"), np.uint8)
NUMBERS[list(map(ord, ALPHABET))] = np.arange(len(ALPHABET))


class Text(NamedTuple):
    """The tokens to learn from and those held out, both uint8[characters]."""

    train: np.ndarray
    validation: np.ndarray


def load(limit: int | None = None) -> Text:
    """Returns the source files of the standard library, one after the other.

    Args:
      limit: how many characters to keep of either part; all of them if None.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(x for x in folder.rglob("*.py") if not set(SKIPPED) & set(x.relative_to(folder).parts))
    held_out = files[HELD_OUT // 2 :: HELD_OUT]
    parts = [x for x in files if x not in set(held_out)], held_out
    return Text(*(encode("\n".join(map(read, part)))[:limit] for part in parts))


def read(file: Path) -> str:
    """The text of a file, with spaces in the place of tabs."""
    return file.read_text("utf-8", errors="replace").expandtabs()


def encode(text: str) -> np.ndarray:
    """From characters to tokens, uint8[characters]."""
    return NUMBERS[np.frombuffer(text.encode("latin-1", errors="replace"), np.uint8)]


def decode(tokens: np.ndarray) -> str:
    """From tokens to characters."""
    return "".join(ALPHABET[token] for token in tokens)


def draw_windows(tokens: np.ndarray, shape: tuple[int, ...], seed: tuple[int, int]) -> np.ndarray:
    """Returns pieces of the text from random places, int32 of this shape; the last axis is the text's.

    The seed decides them, so that a run that is resumed needs only the number of the step.
    """
    length = shape[-1]
    starts = np.random.default_rng(seed).integers(len(tokens) - length + 1, size=(*shape[:-1], 1))
    return tokens[starts + np.arange(length)].astype(np.int32)


def even_windows(tokens: np.ndarray, count: int, length: int) -> np.ndarray:
    """Returns pieces of the text at equal distances, int32[count, length]."""
    starts = np.linspace(0, len(tokens) - length, count).astype(int)
    return tokens[starts[:, None] + np.arange(length)].astype(np.int32)
