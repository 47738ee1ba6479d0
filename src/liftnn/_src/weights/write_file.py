"""Write one safetensors file, with a tensor at a time in memory and checksums that are computed meanwhile.

The header comes first in a file and has the checksums, so it is written twice: before the tensors with zeros for the
checksums, and after them again, with the same length. The file has another name until it is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import IO, Any, NamedTuple

import numpy as np

from liftnn import errors
from liftnn._src.weights.checksums import add_to_checksum
from liftnn._src.weights.entries import METADATA, Spec
from liftnn._src.weights.header import DTYPES, NOTES, Notes

_CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
_ZEROS = "00000000"
_SMALL_WRITE = 1 << 20
"""The number of bytes below which another thread is not worth its start."""


class Tensor(NamedTuple):
    """An array to write.

    Args:
      spec: Shape and dtype, of those that the format has.
      read: Returns the array; called once, when it is its turn.
    """

    spec: Spec
    read: Callable[[], Any]

    @property
    def nbytes(self) -> int:
        """The number of bytes in the file."""
        return self.spec.nbytes


def has_code(dtype: Any) -> bool:
    """Return whether the format has a dtype."""
    return dtype in _CODES


def write_file(path: str, tensors: Mapping[str, Tensor], notes: Notes, metadata: Mapping[str, str]) -> None:
    """Write a file, in place of one that may be there.

    Args:
      path: The path of the file.
      tensors: The arrays by name.
      notes: What the format does not know of them. Their checksums are added.
      metadata: Texts by name.

    Raises:
      CheckpointError: If it cannot be written. A file that was there is as before then.
    """
    # Those with the largest elements first, so that all are aligned.
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].spec.dtype.itemsize))
    specs = {name: tensor.spec for name, tensor in tensors.items()}

    def write(file: IO[bytes]) -> None:
        notes.checksums = dict.fromkeys(tensors, _ZEROS)
        file.write(_header(specs, {**metadata, NOTES: notes.seal(specs, metadata)}))
        with ThreadPoolExecutor(1) as pool:
            for name, tensor in tensors.items():
                notes.checksums[name] = _write_tensor(file, tensor.read(), pool)
        file.seek(0)
        file.write(_header(specs, {**metadata, NOTES: notes.seal(specs, metadata)}))

    replace(path, write)


def _header(specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> bytes:
    """Return the length of a header, and the header, padded so that the tensors are aligned."""
    fields: dict[str, Any] = {METADATA: dict(metadata)}
    end = 0
    for name, spec in specs.items():
        start, end = end, end + spec.nbytes
        fields[name] = {"dtype": _CODES[spec.dtype], "shape": spec.shape, "data_offsets": (start, end)}
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_tensor(file: IO[bytes], x: Any, pool: Executor) -> str:
    """Write the bytes of a numpy array, and return their checksum."""
    content = x.reshape(-1).view(np.uint8)
    if len(content) < _SMALL_WRITE:
        file.write(memoryview(content))
        return f"{add_to_checksum(content):08x}"
    crc = pool.submit(add_to_checksum, content)
    file.write(memoryview(content))
    return f"{crc.result():08x}"


def replace(path: str, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file beside its final place, and rename it when it is complete.

    Args:
      path: The final path.
      write: Writes the content.

    Raises:
      CheckpointError: If it cannot be written.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise errors.CheckpointError(
            f"{path} cannot be written: it is a device or a pipe, not a regular file.",
            "Pass the path of a new file, or of one to replace.",
        )
    temporary = f"{path}.{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        with open(temporary, "wb") as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        raise errors.CheckpointError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Check the folder and the free space of the disk.",
        ) from None
    finally:
        remove(temporary)


def remove(path: str) -> None:
    """Remove a file, if there is one."""
    with contextlib.suppress(OSError):
        os.remove(path)
