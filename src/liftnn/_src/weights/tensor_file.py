"""One safetensors file: its header, checked twice, and its tensors, read one at a time when they are needed.

The package safetensors reads the header first and rejects what is not well formed. liftnn then reads the bytes of each
tensor into memory of its own, since the package does not know all dtypes that JAX has.
"""

from __future__ import annotations

import importlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.weights.checksums import ROW_BYTES, add_to_checksum
from liftnn._src.weights.entries import METADATA, Spec
from liftnn._src.weights.header import DTYPES, HEADER_VERSION, NOTES, Notes

_CHUNK = 4 * ROW_BYTES
"""The number of bytes that are read at once for a checksum."""
_PART = 1 << 22
"""The number of bytes of a large tensor that one thread reads."""
_THREADS = min(8, os.cpu_count() or 1)


def load_safetensors(verb: str) -> Any:
    """Return the package safetensors.

    Args:
      verb: The function that needs it.

    Returns:
      The package, with its module for numpy loaded.

    Raises:
      MissingPackageError: If it is not installed.
    """
    try:
        importlib.import_module("safetensors.numpy")
        return importlib.import_module("safetensors")
    except ImportError:
        raise errors.MissingPackageError(
            f"{verb} needs the package safetensors, which is not installed.",
            "Install it with `pip install 'liftnn[weights]'`.",
        ) from None


class TensorFile:
    """An open safetensors file.

    Args:
      verb: The function that reads it, for messages.
      path: The path of the file.

    Raises:
      CheckpointError: If the file cannot be read, or is not a well-formed safetensors file.
      MissingPackageError: If safetensors is not installed.
    """

    def __init__(self, verb: str, path: str):
        safetensors = load_safetensors(verb)
        self.path = path
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_THREADS)  # starts threads when it has work
        try:
            self._file = open(path, "rb")  # noqa: SIM115  # closed by `close`
        except OSError as error:
            raise errors.CheckpointError(
                f"{path} cannot be read: {error.strerror or error}.", "Check the path of the file."
            ) from None
        try:
            with safetensors.safe_open(path, framework="np"):
                pass  # it has checked the header
            self._read_header()
        except errors.CheckpointError:
            self.close()
            raise
        except Exception as error:  # the package's own, and what a header that it accepts raises here
            self.close()
            raise _damaged(path, "its header is not that of a safetensors file") from error

    def close(self) -> None:
        """Close the file."""
        self._pool.shutdown()
        self._file.close()

    def _read_header(self) -> None:
        """Read the names, shapes, dtypes and positions of the tensors."""
        size = os.fstat(self._file.fileno()).st_size
        length = int.from_bytes(self._file.read(8), "little")
        header: dict[str, Any] = json.loads(self._file.read(min(length, size)))
        self.metadata: dict[str, str] = dict(header.pop(METADATA, None) or {})
        self._specs: dict[str, Spec] = {}
        self._starts: dict[str, int] = {}
        for name, info in header.items():
            if info["dtype"] not in DTYPES:
                raise errors.CheckpointError(
                    f"The tensor {name!r} in {self.path} has the dtype {info['dtype']}, which liftnn does not read.",
                    "Convert the tensor to another dtype with the program that wrote the file.",
                )
            spec = Spec(tuple(map(int, info["shape"])), np.dtype(DTYPES[info["dtype"]]))
            start, end = info["data_offsets"]
            if (
                min(spec.shape, default=0) < 0
                or end - start != spec.nbytes
                or not 0 <= start <= end <= size - 8 - length
            ):
                raise _damaged(self.path, f"the position of the tensor {name!r} is wrong")
            self._specs[name], self._starts[name] = spec, 8 + length + start
        self.notes = self._read_notes()

    def _read_notes(self) -> Notes:
        """Return liftnn's part of the metadata; an empty one for a file of another program."""
        if NOTES not in self.metadata:
            return Notes()
        try:
            fields = json.loads(self.metadata[NOTES])
            version = fields["version"]
            notes = Notes.parse(fields, self._specs) if version in (1, HEADER_VERSION) else None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _damaged(self.path, "liftnn's part of its metadata cannot be read") from error
        if notes is None:
            raise errors.CheckpointError(
                f"{self.path} has version {version!r:.20} of liftnn's weight files; this version of liftnn "
                f"reads versions 1 and {HEADER_VERSION}.",
                "Update liftnn.",
            )
        if not notes.holds(self._specs, self.metadata):
            raise _damaged(self.path, "its header has changed since it was written")
        if version == 1:
            notes.checksums = {}
        return notes

    def names(self) -> list[str]:
        """Return the names of the tensors."""
        return list(self._specs)

    def spec(self, name: str) -> Spec:
        """Return shape and dtype of a tensor; for the data of a typed key, those of the key."""
        shape, dtype = self._specs[name]
        if name in self.notes.dtypes:
            return Spec(shape, np.dtype(self.notes.dtypes[name]))
        if name in self.notes.keys:
            impl, data = self.notes.keys[name], jax.ShapeDtypeStruct(shape, dtype)
            try:
                key = jax.eval_shape(lambda x: jax.random.wrap_key_data(x, impl=impl), data)
            except (ValueError, TypeError):
                raise _damaged(
                    self.path, f"{name!r} is not a PRNG key of the implementation {impl!r}"
                ) from None
            return Spec(key.shape, key.dtype)
        return Spec(shape, dtype)

    def read(self, name: str) -> Any:
        """Return a tensor: a new numpy array, or an array of typed keys.

        Args:
          name: Its name.

        Returns:
          The array.

        Raises:
          CheckpointError: If the file cannot be read.
        """
        shape, dtype = self._specs[name]
        buffer = _aligned(self._specs[name].nbytes)
        self._read_parts(self._starts[name], memoryview(buffer))
        x = buffer.view(dtype).reshape(shape)
        if name in self.notes.dtypes:
            return x.view(self.notes.dtypes[name])
        if name in self.notes.keys:
            return jax.random.wrap_key_data(jnp.asarray(x), impl=self.notes.keys[name])
        return x

    def verify(self) -> None:
        """Compare the tensors with their checksums, if the file has them.

        Raises:
          CheckpointError: If the bytes of a tensor are not those that were written; the message lists the names.
        """
        checked = [name for name in self._specs if name in self.notes.checksums]
        found = self._pool.map(self._checksum, checked)
        wrong = [n for n, crc in zip(checked, found, strict=True) if crc != self.notes.checksums[n]]
        if wrong:
            raise _damaged(self.path, f"the bytes of the tensors {', '.join(map(repr, wrong))} have changed")

    def _checksum(self, name: str) -> str:
        """Return the checksum of a tensor, read in chunks."""
        start, nbytes = self._starts[name], self._specs[name].nbytes
        chunk: Any = np.empty(min(_CHUNK, nbytes), np.uint8)
        crc = 0
        for at in range(0, nbytes, _CHUNK):
            part = chunk[: min(_CHUNK, nbytes - at)]
            self._read_into(start + at, memoryview(part))
            crc = add_to_checksum(part, crc)
        return f"{crc:08x}"

    def _read_parts(self, start: int, buffer: memoryview) -> None:
        """Fill a buffer from a position in the file, a large one with several threads."""
        if len(buffer) < 2 * _PART:
            self._read_into(start, buffer)
        else:
            parts = range(0, len(buffer), _PART)
            list(self._pool.map(lambda at: self._read_into(start + at, buffer[at : at + _PART]), parts))

    def _read_into(self, start: int, buffer: memoryview) -> None:
        """Fill a buffer from a position in the file; several threads may do so at once."""
        try:
            n = self._read_at(start, buffer)
        except OSError as error:
            raise _damaged(self.path, f"it cannot be read ({error.strerror or error})") from None
        if n != len(buffer):
            raise _damaged(self.path, "it has become shorter while it was read")

    def _read_at(self, start: int, buffer: memoryview) -> int:
        """Read from a position until a buffer is full or the file ends; return the number of bytes."""
        if not hasattr(os, "preadv"):  # Windows
            with self._lock:
                self._file.seek(start)
                return self._file.readinto(buffer)
        n = 0
        while n < len(buffer) and (count := os.preadv(self._file.fileno(), [buffer[n:]], start + n)):
            n += count
        return n


def _aligned(nbytes: int) -> Any:
    """Return new bytes at an address that is a multiple of 64, so that JAX need not copy them on a CPU."""
    whole = np.empty(nbytes + 64, np.uint8)
    first = -whole.ctypes.data % 64
    return whole[first : first + nbytes]


def _damaged(path: str, why: str) -> errors.CheckpointError:
    """Return the error for a file that is not as it was written."""
    return errors.CheckpointError(
        f"{path} is damaged: {why}.", "Nothing was changed. Load another copy of the file, or write it again."
    )
