"""The header of a safetensors file: the codes of dtypes, and what liftnn adds to the metadata.

liftnn adds one text, under the name `liftnn`: checksums, and the kinds of values that the format does not know. Other
programs ignore it.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from liftnn._src.weights.entries import Spec

NOTES = "liftnn"
"""The name of liftnn's text in the metadata."""
HEADER_VERSION = 2
"""The version of that text; a file with a higher one was written by a newer liftnn. Version 1 has other checksums."""
DTYPES: Mapping[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    "BOOL": np.bool_, "C64": np.complex64, "F8_E4M3": jnp.float8_e4m3fn, "F8_E5M2": jnp.float8_e5m2,
    "F8_E4M3FNUZ": jnp.float8_e4m3fnuz, "F8_E5M2FNUZ": jnp.float8_e5m2fnuz, "F8_E8M0": jnp.float8_e8m0fnu,
}  # fmt: skip
"""The dtype of each code of the format."""
BYTE_DTYPES = frozenset({
    "int1", "int2", "int4", "uint1", "uint2", "uint4", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn",
    "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz",
})  # fmt: skip
"""Dtypes of one byte that the format does not have; they are stored as bytes."""


@dataclasses.dataclass
class Notes:
    """What liftnn writes into the metadata of a file, as JSON.

    Args:
      checksums: The checksum of the bytes of each tensor, by name, as 8 digits.
      keys: The implementation of each typed PRNG key, whose data are the tensor.
      dtypes: The dtype of each tensor that is stored as bytes, since the format does not have it.
      ties: The name of the tensor for each other name of it.
      header: The checksum of all else in the header.
      version: The version of this text.
    """

    checksums: dict[str, str] = dataclasses.field(default_factory=dict)
    keys: dict[str, str] = dataclasses.field(default_factory=dict)
    dtypes: dict[str, str] = dataclasses.field(default_factory=dict)
    ties: dict[str, str] = dataclasses.field(default_factory=dict)
    header: str = ""
    version: int = HEADER_VERSION

    def of(self, names: Collection[str]) -> Notes:
        """Return the notes of some of the tensors."""
        keys, dtypes = ({k: v for k, v in x.items() if k in names} for x in (self.keys, self.dtypes))
        return Notes(keys=keys, dtypes=dtypes, ties={k: v for k, v in self.ties.items() if v in names})

    def seal(self, specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> str:
        """Return the text, with the checksum of the header that it will be part of."""
        self.header = _header_checksum(self, specs, metadata)
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @staticmethod
    def parse(fields: Any, specs: Mapping[str, Spec]) -> Notes:
        """Return the notes of a file.

        Args:
          fields: The JSON.
          specs: Shape and dtype of the tensors by name.

        Returns:
          The notes.

        Raises:
          ValueError: If `save_weights` does not write such notes.
          TypeError: If they have other fields.
        """
        notes = Notes(**fields)
        for field in (notes.checksums, notes.keys, notes.dtypes, notes.ties):
            if type(field) is not dict or not all(type(x) is str for x in field.values()):
                raise ValueError("a field is not a dict of texts")
        stored = {*notes.checksums, *notes.keys, *notes.dtypes, *notes.ties.values()}
        if not stored <= specs.keys() or not notes.ties.keys().isdisjoint(specs):
            raise ValueError("they are about other tensors")
        if not all(specs[n].dtype == np.uint8 and x in BYTE_DTYPES for n, x in notes.dtypes.items()):
            raise ValueError("a tensor is not stored as bytes")
        return notes

    def holds(self, specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> bool:
        """Return whether the header is the one for which the text was written."""
        return self.header == _header_checksum(self, specs, metadata)


def _header_checksum(notes: Notes, specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> str:
    tensors = sorted((name, list(spec.shape), str(np.dtype(spec.dtype))) for name, spec in specs.items())
    rest = sorted((k, v) for k, v in metadata.items() if k != NOTES)
    fields = dataclasses.asdict(notes) | {"header": ""}
    return f"{zlib.crc32(json.dumps([fields, tensors, rest], sort_keys=True).encode()):08x}"
