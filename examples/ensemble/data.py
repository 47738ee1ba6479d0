"""The MNIST images and labels as numpy arrays, checked against the known checksums."""

import hashlib
import lzma
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "train_mnist" / "data"

# sha256 of the decompressed files
CHECKSUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class DataError(Exception):
    """A data file cannot be used; the message is one line that says which, why and what to do."""


class Digits(NamedTuple):
    """Images of shape (n, 28, 28, 1), uint8, and their labels of shape (n,), int32."""

    images: np.ndarray
    labels: np.ndarray


class Mnist(NamedTuple):
    """The 60,000 training and 10,000 test digits."""

    train: Digits
    test: Digits


def load(folder: Path, *, limit: int | None = None) -> Mnist:
    """Returns MNIST from the four ``.xz`` files in `folder`.

    Args:
      folder: where the files are.
      limit: how many of the training digits to keep, the first ones; all of them if None.

    Raises:
      DataError: if a file is missing, unreadable, truncated or not the original.
    """
    return Mnist(load_digits(folder, "train", limit), load_digits(folder, "t10k"))


def add_noise(images: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """Returns images with noise on each pixel: normal, with a deviation in units of the range of 0 to 255."""
    noise = np.random.default_rng(seed).normal(scale=255 * deviation, size=images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def load_digits(folder: Path, split: str, limit: int | None = None) -> Digits:
    """Returns the first `limit` digits of one split, ``train`` or ``t10k``."""
    images = load_file(folder, f"{split}-images-idx3-ubyte")
    labels = load_file(folder, f"{split}-labels-idx1-ubyte")
    return Digits(images[:limit, ..., None], labels[:limit].astype(np.int32))


def load_file(folder: Path, name: str) -> np.ndarray:
    """Returns the array in the file `name`, once its checksum is seen to be right."""
    path = folder / f"{name}.xz"
    try:
        with lzma.open(path) as file:
            content = file.read()
        array = parse_idx(content)
    except FileNotFoundError:
        raise unusable(path, "is missing") from None
    except EOFError:
        raise unusable(path, "is truncated") from None
    except OSError as error:
        raise unusable(path, f"cannot be read ({error.strerror})") from None
    except (lzma.LZMAError, ValueError) as error:
        raise unusable(path, f"has been altered ({error})") from None
    if hashlib.sha256(content).hexdigest() != CHECKSUMS[name]:
        raise unusable(path, "has been altered (its sha256 is not that of MNIST)")
    return array


def parse_idx(content: bytes) -> np.ndarray:
    """Returns the array of unsigned bytes that `content`, in the IDX format, holds.

    The format is two zero bytes, a byte for the type (8: unsigned byte), a byte for the number of
    dimensions, each dimension as a big-endian uint32, then the data in C order.

    Raises:
      ValueError: if the magic number is another, or there is not as much data as the shape says.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(f"its magic number is {content[:4].hex() or 'absent'}")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if len(content) != start + math.prod(shape):
        raise ValueError(f"{len(content)} bytes do not hold the shape {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def unusable(path: Path, cause: str) -> DataError:
    """The error for a data file, with its remedy: the repository has a good copy."""
    if path.parent.resolve() == FOLDER:
        return DataError(f"{path} {cause}; restore it with: git checkout -- {path}")
    return DataError(f"{path} {cause}; copy it from {FOLDER}, or leave --data out")
