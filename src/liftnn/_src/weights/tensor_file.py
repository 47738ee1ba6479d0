"""One safetensors file: its header, checked twice, and its tensors, read one at a time when they are needed.

The package safetensors reads the header first, in Rust, and rejects what is not well formed. liftnn then reads the
bytes of each tensor into memory of its own, since the package does not know all dtypes that JAX has.
What liftnn adds to the format is one text in the metadata, under `liftnn`: checksums, and the kinds of values that the
format does not know. Other programs ignore it.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.trees import list_paths
from liftnn._src.weights.entries import Spec

NOTES = "liftnn"
"""The name of liftnn's text in the metadata."""
VERSION = 1
"""The version of that text; a file with a higher one was written by a newer liftnn."""
DTYPES: Mapping[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    "BOOL": np.bool_, "C64": np.complex64, "F8_E4M3": jnp.float8_e4m3fn, "F8_E5M2": jnp.float8_e5m2,
    "F8_E4M3FNUZ": jnp.float8_e4m3fnuz, "F8_E5M2FNUZ": jnp.float8_e5m2fnuz, "F8_E8M0": jnp.float8_e8m0fnu,
}  # fmt: skip
"""The dtype of each code of the format."""
_CHUNK = 1 << 24
"""The number of bytes that are read at once for a checksum."""


@dataclasses.dataclass
class Notes:
    """What liftnn writes into the metadata of a file, as JSON.

    Args:
      crc32: The checksum of the bytes of each tensor, by name.
      keys: The implementation of each typed PRNG key, whose data are the tensor.
      dtypes: The dtype of each tensor that is stored as bytes, since the format does not have it.
      ties: The name of the tensor for each other name of it.
      header: The checksum of all else in the header; None in one that is being written.
      version: The version of this text.
    """

    crc32: dict[str, int] = dataclasses.field(default_factory=dict)
    keys: dict[str, str] = dataclasses.field(default_factory=dict)
    dtypes: dict[str, str] = dataclasses.field(default_factory=dict)
    ties: dict[str, str] = dataclasses.field(default_factory=dict)
    header: int | None = None
    version: int = VERSION

    def seal(self, specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> str:
        """Return the text, with the checksum of the header that it will be part of."""
        self.header = None
        self.header = _header_checksum(self, specs, metadata)
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    def holds(self, specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> bool:
        """Return whether the header is the one for which the text was written."""
        return self.header == _header_checksum(dataclasses.replace(self, header=None), specs, metadata)


def _header_checksum(notes: Notes, specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> int:
    tensors = sorted((name, list(spec.shape), str(np.dtype(spec.dtype))) for name, spec in specs.items())
    rest = sorted((k, v) for k, v in metadata.items() if k != NOTES)
    text = json.dumps([dataclasses.asdict(notes), tensors, rest], sort_keys=True)
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def load_safetensors(verb: str) -> Any:
    """Return the package safetensors.

    Args:
      verb: The function that needs it.

    Returns:
      Its module for numpy.

    Raises:
      MissingPackageError: If it is not installed.
    """
    try:
        return importlib.import_module("safetensors.numpy")
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
        except (
            Exception
        ) as error:  # safetensors has an exception of its own, and OSError, ValueError ... occur too
            self.close()
            raise _damaged(path, f"its header is not that of a safetensors file ({error})") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_header(self) -> None:
        """Read the names, shapes, dtypes and positions of the tensors."""
        size = os.fstat(self._file.fileno()).st_size
        length = int.from_bytes(self._file.read(8), "little")
        header: dict[str, Any] = json.loads(self._file.read(min(length, size)))
        self.metadata: dict[str, str] = dict(header.pop("__metadata__", None) or {})
        self._specs: dict[str, Spec] = {}
        self._starts: dict[str, int] = {}
        for name, info in header.items():
            if info["dtype"] not in DTYPES:
                raise _damaged(
                    self.path, f"the tensor {name!r} has the dtype {info['dtype']}, which JAX does not have"
                )
            spec = Spec(tuple(map(int, info["shape"])), np.dtype(DTYPES[info["dtype"]]))
            start, end = info["data_offsets"]
            nbytes = math.prod(spec.shape) * spec.dtype.itemsize
            if (
                min(spec.shape, default=0) < 0
                or end - start != nbytes
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
            version = fields.get("version")
            notes = Notes(**fields) if version == VERSION else None
        except (ValueError, TypeError, AttributeError):
            raise _damaged(self.path, "liftnn's part of its metadata cannot be read") from None
        if notes is None:
            raise errors.CheckpointError(
                f"{self.path} has version {version!r} of liftnn's files of weights; this liftnn reads {VERSION}.",
                "Install the version of liftnn that has written it, or a newer one.",
            )
        if not notes.holds(self._specs, self.metadata):
            raise _damaged(self.path, "its header has changed since it was written")
        return notes

    def names(self) -> list[str]:
        """Return the names of the tensors."""
        return list(self._specs)

    def spec(self, name: str) -> Spec:
        """Return shape and dtype of a tensor; for the data of a typed key, those of the key."""
        shape, dtype = self._specs[name]
        if name in self.notes.dtypes:
            return Spec(shape, _dtype_named(self.notes.dtypes[name]))
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
        buffer = _aligned(math.prod(shape) * dtype.itemsize)
        self._read_into(self._starts[name], memoryview(buffer))
        x = buffer.view(dtype).reshape(shape)
        if name in self.notes.dtypes:
            return x.view(_dtype_named(self.notes.dtypes[name]))
        if name in self.notes.keys:
            return jax.random.wrap_key_data(jnp.asarray(x), impl=self.notes.keys[name])
        return x

    def verify(self) -> None:
        """Compare the tensors with their checksums, if the file has them.

        Raises:
          CheckpointError: If the bytes of a tensor are not those that were written; the message lists the names.
        """
        checked = [name for name in self._specs if name in self.notes.crc32]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            found = pool.map(self._checksum, checked)
            wrong = [n for n, crc in zip(checked, found, strict=True) if crc != self.notes.crc32[n]]
        if wrong:
            names = list_paths(map(repr, wrong), most=len(wrong))
            raise _damaged(
                self.path, f"the bytes of these tensors have changed since they were written:\n{names}"
            )

    def _checksum(self, name: str) -> int:
        """Return the checksum of a tensor, read in chunks."""
        shape, dtype = self._specs[name]
        start, nbytes = self._starts[name], math.prod(shape) * dtype.itemsize
        chunk, crc = memoryview(bytearray(min(_CHUNK, nbytes))), 0
        for at in range(0, nbytes, _CHUNK):
            part = chunk[: min(_CHUNK, nbytes - at)]
            self._read_into(start + at, part)
            crc = zlib.crc32(part, crc)
        return crc

    def _read_into(self, start: int, buffer: memoryview) -> None:
        """Fill a buffer from a position in the file; several threads may do so at once."""
        done = 0
        while done < len(buffer):
            try:
                n = os.preadv(self._file.fileno(), [buffer[done:]], start + done)
            except OSError as error:
                raise _damaged(self.path, f"it cannot be read ({error.strerror or error})") from None
            if n == 0:
                raise _damaged(self.path, "it has become shorter while it was read")
            done += n


def _aligned(nbytes: int) -> Any:
    """Return new bytes at an address that is a multiple of 64, so that JAX need not copy them on a CPU."""
    whole = np.empty(nbytes + 64, np.uint8)
    first = -whole.ctypes.data % 64
    return whole[first : first + nbytes]


def _dtype_named(name: str) -> Any:
    """Return a dtype by its name, which may be one that only JAX has, such as `int4`."""
    return np.dtype(getattr(jnp, name)) if name in ("int4", "uint4", "int2", "uint2") else jnp.dtype(name)


def _damaged(path: str, why: str) -> errors.CheckpointError:
    """Return the error for a file that is not as it was written."""
    return errors.CheckpointError(
        f"{path} is damaged: {why}", "Nothing was changed. Load another copy of the file, or write it again."
    )


def checksums(arrays: Mapping[str, Any]) -> dict[str, int]:
    """Return the checksum of each array.

    Args:
      arrays: Contiguous numpy arrays by name.

    Returns:
      The checksums by name.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(arrays, pool.map(_array_checksum, arrays.values()), strict=True))


def _array_checksum(x: Any) -> int:
    return zlib.crc32(memoryview(x.reshape(-1).view(np.uint8))) if x.size else 0
