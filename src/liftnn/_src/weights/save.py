"""Write the arrays of a module to a safetensors file, or to several with an index.

A file is written beside its final place and renamed when it is complete. Shards have the checksum of their contents in
their names, and the index is renamed last. So a process that dies at any moment leaves the previous weights readable.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.filters import Filter
from liftnn._src.weights.entries import Entry, Spec, find_entries, name_of
from liftnn._src.weights.index import shard_paths
from liftnn._src.weights.tensor_file import DTYPES, NOTES, Notes, checksums, load_safetensors

_CODES = {np.dtype(dtype) for dtype in DTYPES.values()}
"""The dtypes that the format has."""


def save(
    file: str, module: Any, filters: Sequence[Filter], max_shard_size: int | None, metadata: Mapping[str, str]
) -> None:
    """Write the arrays of a module; see `liftnn.save_weights`."""
    safetensors = load_safetensors("save_weights")
    _check_metadata(metadata)
    notes, arrays = Notes(), {}
    for entry in find_entries("save_weights", module, *filters):
        arrays[entry.name] = _as_stored(entry, notes)
        notes.ties.update({name_of(path): entry.name for path in entry.aliases})
    shards = _divide(arrays, max_shard_size)
    if len(shards) == 1:
        _write(safetensors, file, arrays, notes, metadata)
        _remove_shards(file)
        return
    _write_shards(safetensors, file, shards, notes, metadata)


def _check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise ArgumentError unless the metadata are texts by name."""
    if not all(isinstance(k, str) and isinstance(v, str) and k != NOTES for k, v in metadata.items()):
        raise errors.ArgumentError(
            f"The metadata of a safetensors file are texts by name, and the name {NOTES!r} is liftnn's own.",
            "Convert the values with `str` or `json.dumps`.",
        )


def _as_stored(entry: Entry, notes: Notes) -> Any:
    """Return an array as numpy has it, in a dtype of the format; what the format lacks goes into the notes."""
    x = entry.value()
    if isinstance(x, jax.ShapeDtypeStruct):
        raise errors.ArgumentError(
            f"save_weights cannot save {entry.text}: it is abstract, without a value.",
            "Create the model outside of eval_shape, or load weights into it first.",
        )
    if jnp.issubdtype(entry.spec.dtype, jax.dtypes.prng_key):
        notes.keys[entry.name] = str(jax.random.key_impl(x))
        x = jax.random.key_data(x)
    x = np.asarray(x)
    if x.dtype not in _CODES:
        if x.dtype.itemsize != 1:
            raise errors.ArgumentError(
                f"save_weights cannot save {entry.text}: a safetensors file has no {x.dtype} arrays.",
                "Convert the Variable to another dtype, or exclude it with a filter.",
            )
        notes.dtypes[entry.name] = x.dtype.name
        x = x.view(np.uint8)
    return np.ascontiguousarray(x).reshape(x.shape)


def _divide(arrays: Mapping[str, Any], max_shard_size: int | None) -> list[dict[str, Any]]:
    """Return the arrays of each shard: in order, as many as its size allows, and at least one."""
    shards: list[dict[str, Any]] = [{}]
    size = 0
    for name, x in arrays.items():
        if max_shard_size is not None and shards[-1] and size + x.nbytes > max_shard_size:
            shards.append({})
            size = 0
        shards[-1][name] = x
        size += x.nbytes
    return shards


def _write_shards(
    safetensors: Any, file: str, shards: list[dict[str, Any]], notes: Notes, metadata: Mapping[str, str]
) -> None:
    """Write shards and then their index, and remove those of the previous index."""
    before = shard_paths(file)
    stem = os.path.basename(file).removesuffix(".safetensors")
    crcs = [checksums(shard) for shard in shards]
    whole = zlib.crc32(json.dumps([crcs, dict(metadata), notes.keys, notes.dtypes]).encode())
    weight_map: dict[str, str] = {}
    for number, (shard, crc) in enumerate(zip(shards, crcs, strict=True), 1):
        name = f"{stem}-{whole:08x}-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(shard, name)
        own = Notes(crc, _of(shard, notes.keys), _of(shard, notes.dtypes), notes.ties if number == 1 else {})
        _write(safetensors, os.path.join(os.path.dirname(file), name), shard, own, metadata)
    total = sum(x.nbytes for shard in shards for x in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _replace(file + ".index.json", lambda path: _write_text(path, json.dumps(index, indent=2) + "\n"))
    for path in [file, *before]:
        if os.path.basename(path) not in weight_map.values():
            _remove(path)


def _of(shard: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, str]:
    """Return the texts of the arrays of a shard."""
    return {name: text for name, text in texts.items() if name in shard}


def _write(
    safetensors: Any, file: str, arrays: Mapping[str, Any], notes: Notes, metadata: Mapping[str, str]
) -> None:
    """Write one safetensors file."""
    notes.crc32 = notes.crc32 or checksums(arrays)
    sealed = notes.seal({name: Spec(x.shape, x.dtype) for name, x in arrays.items()}, metadata)
    _replace(file, lambda path: safetensors.save_file(dict(arrays), path, {**metadata, NOTES: sealed}))


def _replace(file: str, write: Any) -> None:
    """Write a file beside its final place, and rename it when it is complete and on the disk."""
    temporary = f"{file}.{os.getpid()}.tmp"
    try:
        write(temporary)
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, file)
    except OSError as error:
        raise errors.CheckpointError(
            f"{file} cannot be written: {error.strerror or error}.",
            "Check the folder and the free space of the disk.",
        ) from None
    finally:
        _remove(temporary)


def _write_text(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def _remove_shards(file: str) -> None:
    """Remove the index and shards that an earlier save to the same path has written."""
    if os.path.exists(file + ".index.json"):
        shards = shard_paths(file)
        _remove(file + ".index.json")
        for path in shards:
            _remove(path)


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.remove(path)
