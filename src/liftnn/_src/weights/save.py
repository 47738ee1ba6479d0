"""Write the arrays of a module to a safetensors file, or to several with an index.

A file gets its name when it is complete. Shards have new names, and the index is replaced last. So a process that dies
at any moment leaves the previous weights readable.
"""

from __future__ import annotations

import functools
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.filters import Filter
from liftnn._src.trees import an, is_array_subclass, is_deleted, is_tracer
from liftnn._src.weights.entries import Entry, Spec, check_match, find_entries, name_of
from liftnn._src.weights.header import BYTE_DTYPES, NOTES, Notes
from liftnn._src.weights.index import SUFFIX, old_shards
from liftnn._src.weights.write_file import Tensor, has_code, remove, replace, write_file


def save(
    file: str, module: Any, filters: Sequence[Filter], max_shard_size: int | None, metadata: Mapping[str, str]
) -> None:
    """Write the arrays of a module; see `liftnn.save_weights`."""
    _check_options(max_shard_size, metadata)
    if file.endswith(SUFFIX):
        raise errors.ArgumentError(
            f"{file} is the name of an index, which is written beside shards.",
            f"Pass {os.path.basename(file).removesuffix(SUFFIX)!r}; `load_weights` takes either name.",
        )
    if os.path.islink(file):
        file = os.path.realpath(file)
    notes, tensors = Notes(), {}
    entries = find_entries("save_weights", module, *filters)
    if not entries:
        check_match("save", "", module, *filters)
    for entry in entries:
        tensors[entry.name] = _as_tensor(entry, notes)
        notes.ties.update({name_of(path): entry.name for path in entry.aliases})
    shards = _divide(tensors, max_shard_size)
    if len(shards) > 1:
        _write_shards(file, shards, notes, metadata)
        return
    write_file(file, tensors, notes, metadata)
    if os.path.exists(file + SUFFIX):
        shards = old_shards(file)
        remove(file + SUFFIX)
        _remove_all(shards)


def _check_options(max_shard_size: Any, metadata: Any) -> None:
    """Raise ArgumentError for a size that is not one, and unless the metadata are texts by name."""
    if max_shard_size is not None and (type(max_shard_size) is not int or max_shard_size < 1):
        raise errors.ArgumentError(
            f"max_shard_size is {max_shard_size!r}; it must be a number of bytes.",
            "Pass an int such as 5 * 10**9.",
        )
    pairs: Any = metadata.items() if isinstance(metadata, Mapping) else ((metadata, None),)
    if not all(_is_text(k) and _is_text(v) and k != NOTES for k, v in pairs):
        raise errors.ArgumentError(
            f"The metadata of a safetensors file must map strings to strings, and liftnn reserves the key {NOTES!r}.",
            "Convert the values with `str` or `json.dumps`.",
        )


def _is_text(x: Any) -> bool:
    """Return whether a value is a text that can be written: without a lone surrogate."""
    return isinstance(x, str) and x == x.encode(errors="ignore").decode()


def _check_value(entry: Entry, x: Any) -> None:
    """Raise an error for a value that has no bytes."""
    if isinstance(x, jax.ShapeDtypeStruct):
        raise errors.ArgumentError(
            f"save_weights cannot save {entry.text}: it is abstract, without a value.",
            "Create the model outside of eval_shape, or load weights into it first.",
        )
    if is_tracer(x):
        raise errors.TraceContextError(
            f"save_weights cannot save {entry.text}: it is a tracer, since save_weights was called inside a transform.",
            "Call save_weights outside of the compiled function.",
        )
    if is_deleted(x):
        raise errors.DonatedError(f"The buffer of {entry.text} was donated earlier and is gone.")
    if is_array_subclass(x):
        raise errors.ArgumentError(
            f"save_weights cannot save {entry.text}: it is {an(type(x))}, of which a safetensors file would hold only "
            "the elements.",
            "Store a numpy array, or exclude it with a filter.",
        )


def _as_tensor(entry: Entry, notes: Notes) -> Tensor:
    """Return an array in a dtype of the format; what the format lacks goes into the notes."""
    x = entry.value()
    _check_value(entry, x)
    if jnp.issubdtype(entry.spec.dtype, jax.dtypes.prng_key):
        notes.keys[entry.name] = str(jax.random.key_impl(x))
        x = jax.random.key_data(x)
        return Tensor(Spec(x.shape, x.dtype), functools.partial(_bytes_of, x, x.dtype))
    dtype = np.dtype(entry.spec.dtype)
    if not has_code(dtype):
        if dtype.name not in BYTE_DTYPES:
            raise errors.ArgumentError(
                f"save_weights cannot save {entry.text}: a safetensors file has no {dtype} arrays.",
                "Convert the Variable to another dtype, or exclude it with a filter.",
            )
        notes.dtypes[entry.name] = dtype.name
        dtype = np.dtype(np.uint8)
    return Tensor(Spec(entry.spec.shape, dtype), functools.partial(_bytes_of, x, dtype))


def _bytes_of(x: Any, dtype: Any) -> Any:
    """Return a value as a contiguous numpy array, whose elements are viewed as those of a dtype of the same size."""
    return np.ascontiguousarray(np.asarray(x)).view(dtype)


def _divide(tensors: Mapping[str, Tensor], max_shard_size: int | None) -> list[dict[str, Tensor]]:
    """Return the tensors of each shard: in order, as many as its size allows, and at least one."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if max_shard_size is not None and shards[-1] and size + tensor.nbytes > max_shard_size:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _write_shards(
    file: str, shards: list[dict[str, Tensor]], notes: Notes, metadata: Mapping[str, str]
) -> None:
    """Write shards and then their index, and remove those of the previous index."""
    folder, name = os.path.split(file)
    stem, token = name.removesuffix(".safetensors"), secrets.token_hex(4)
    names = [f"{stem}-{token}-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    before, paths = [file, *old_shards(file)], [os.path.join(folder, name) for name in names]
    try:
        for path, shard in zip(paths, shards, strict=True):
            write_file(path, shard, notes.of(shard), metadata)
        replace(file + SUFFIX, functools.partial(_write_text, json.dumps(index, indent=2) + "\n"))
    except BaseException:
        _remove_all(paths)
        raise
    _remove_all(before)


def _write_text(text: str, file: IO[bytes]) -> None:
    file.write(text.encode())


def _remove_all(paths: Sequence[str]) -> None:
    for path in paths:
        remove(path)
