"""From arrays and index to modules: check, compare, read, and then set everything at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import re
from collections.abc import Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from liftnn import errors
from liftnn._src.checkpoints.checksums import checksums
from liftnn._src.checkpoints.differences import Comparison, compare, mismatch
from liftnn._src.checkpoints.entries import JAX, SCALAR, ArrayEntry, CheckpointEntry
from liftnn._src.checkpoints.index import INDEX, Index, Leaves, damaged
from liftnn._src.checkpoints.keys import encode_path, malformed
from liftnn._src.checkpoints.leaves import FlatModules, ModuleLeaf, flatten_modules, flatten_value
from liftnn._src.checkpoints.orbax import STATE_ITEM, read_arrays
from liftnn._src.checkpoints.plain_values import decode_value
from liftnn._src.checkpoints.restored import Restored
from liftnn._src.checkpoints.stored import data_shape, from_stored, stored_dtype
from liftnn._src.checkpoints.targets import target_dtype, target_kind, target_sharding, with_weak_type
from liftnn._src.modules.update import update
from liftnn._src.sharding.agreement import agree
from liftnn._src.sharding.descriptions import describe_array
from liftnn._src.trees import format_path, is_array, is_tracer
from liftnn._src.variables.state import State
from liftnn._src.variables.variable import Variable
from liftnn._src.variables.variable_types import Empty

_Reading = tuple[ArrayEntry, Any]
"""The entry of an array and the leaf of a module that it replaces; None for an array among the plain values."""


def restore_step(folder: Any, step: int, name: str, modules: tuple[Any, ...], strict: bool) -> Restored:
    """Fill modules from a step.

    Args:
      folder: The folder of the step.
      step: The step.
      name: The name of the step in messages.
      modules: The modules; `...` in place of those to skip.
      strict: Whether to raise if something does not fit.

    Returns:
      What was read.

    Raises:
      CheckpointError: If it does not fit, or is damaged. Nothing is changed then.
    """
    skipped = {i for i, x in enumerate(modules) if x is ...}
    wanted = tuple([None if x is ... else x for x in modules])

    def fit() -> tuple[Index, Comparison]:
        flat = flatten_modules(wanted, "restore")
        _check_traces(flat)
        with _named(name):
            index = read_index(folder)
            found = compare(index, flat, skipped)
            if strict and found.has_differences:
                raise mismatch(name, found)
            return index, found

    def read() -> tuple[dict[str, Any], State]:
        with _named(name):
            return _read(folder / STATE_ITEM, index, found)

    index, found = agree("restore", "restore", fit, lambda fitted: _describe_targets(fitted[1]))
    values, states = agree("restore", "restore", read, lambda _: {})
    update(wanted, states)
    report = map(tuple, (found.missing, found.unexpected, [*found.different, *found.too_wide]))
    return Restored(step, values, index.metrics, *report)


def _check_traces(flat: FlatModules) -> None:
    """Raise ArgumentTypeError if a value is a tracer: a compiled function would not read the files when it runs."""
    for leaf in flat.leaves.values():
        if any(is_tracer(x) for _, x in flatten_value(leaf.value) or ()):
            raise errors.ArgumentTypeError(
                f"{format_path(leaf.path, 'modules')} is a tracer: restore was called inside a transform, where arrays "
                "have no values.",
                "Call restore outside of the compiled function.",
            )


def _describe_targets(found: Comparison) -> dict[str, str]:
    """Return a text for each leaf to restore, which must be the same in all processes."""
    return {
        format_path(leaf.path, "modules"): ", ".join(
            describe_array(x) for _, x in flatten_value(leaf.value) or ()
        )
        for leaf, _ in found.fitting
    }


@contextlib.contextmanager
def _named(name: str) -> Generator[None]:
    """Add the name of the checkpoint to an error of it."""
    try:
        yield
    except errors.CheckpointError as error:
        if name in error.cause:
            raise
        cause = re.sub("[Tt]he checkpoint", lambda match: f"{match[0]} {name}", error.cause, count=1)
        named = errors.CheckpointError(cause, error.remedy)
        raise named.with_traceback(error.__traceback__) from error.__cause__


def index_file(folder: Any) -> Any:
    """Return the path of the index of a step."""
    return folder / STATE_ITEM / INDEX


def read_index(folder: Any) -> Index:
    """Return the index of a step, without a check of the other files.

    Args:
      folder: The folder of the step.

    Returns:
      The index.

    Raises:
      CheckpointError: If it does not exist or is damaged.
    """
    try:
        data = index_file(folder).read_bytes()
    except OSError as error:
        raise errors.CheckpointError(
            f"The checkpoint cannot be read: there is no readable file {STATE_ITEM}/{INDEX}, which `liftnn.save` "
            "writes.",
            "Read a checkpoint of Orbax with Orbax, into a State, and pass it to `liftnn.update`.",
        ) from error
    return Index.from_bytes(data)


_SMALL_FILE = 1 << 20
"""Files with fewer bytes hold descriptions: they are checked before Orbax reads them."""


def _check_sizes(folder: Any, index: Index) -> None:
    """Raise an error if a file is missing or has another length than when it was saved."""
    for name, (expected, _) in index.files.items():
        if not _is_inside(name) or not (folder / name).is_file():
            raise damaged(f"the file {STATE_ITEM}/{name} is missing")
        length = (folder / name).stat().st_size
        if length != expected:
            raise damaged(f"the file {STATE_ITEM}/{name} has {length} bytes, not {expected}")


def _check_bytes(folder: Any, index: Index, names: list[str]) -> None:
    """Raise an error if a file has other bytes than when it was saved."""
    actual = checksums(folder, names)
    for name in names:
        if actual[name] != index.files[name]:
            raise damaged(f"the file {STATE_ITEM}/{name} has changed")


def _is_inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/") and "\\" not in name


def _read(folder: Any, index: Index, found: Comparison) -> tuple[dict[str, Any], State]:
    """Return the plain values, and a State with the new value of each leaf that fits."""
    readings: dict[int, _Reading] = {}

    def note(entry: CheckpointEntry, target: Any) -> CheckpointEntry:
        if isinstance(entry, ArrayEntry):
            readings[id(entry)] = (entry, target)
        return entry

    values = decode_value(index.values, lambda data: note(ArrayEntry.from_json(data), None))
    if not isinstance(values, dict):
        raise malformed(index.values)
    for leaf, entries in found.fitting:
        for at, target in flatten_value(leaf.value) or ():
            note((entries or {})[encode_path(at)], target)
    arrays = _read_all(folder, index, readings)
    filled = {leaf.path: _new_holder(leaf, entries, arrays) for leaf, entries in found.fitting}
    return _fill_values(values, arrays), State.from_flat(filled)


def _read_all(folder: Any, index: Index, readings: dict[int, _Reading]) -> dict[int, Any]:
    """Return the arrays by the id of their entry."""
    shardings = {
        entry.name: _reading_sharding(entry, target)
        for entry, target in readings.values()
        if entry.name is not None
    }
    stored = _read_checked(folder, index, shardings)
    return {key: _finish(entry, target, stored) for key, (entry, target) in readings.items()}


def _read_checked(folder: Any, index: Index, shardings: dict[str, Any]) -> dict[str, Any]:
    """Return the stored arrays by name. Large files are checked while Orbax reads them; a bad one counts first."""
    _check_sizes(folder, index)
    large = [name for name, (length, _) in index.files.items() if length >= _SMALL_FILE]
    _check_bytes(folder, index, [name for name in index.files if name not in set(large)])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        check = pool.submit(_check_bytes, folder, index, large)
        try:
            stored = read_arrays(folder, shardings) if shardings else {}
        except (
            Exception
        ) as error:  # of Orbax, for files that were changed, maybe together with their checksums
            check.result()
            raise damaged(f"Orbax cannot read it ({type(error).__name__})") from error
        check.result()
    return stored


def _reading_sharding(entry: ArrayEntry, target: Any) -> Any:
    """Return the sharding to read with; None to read a numpy array."""
    if target_kind(entry, target) != JAX:
        return None
    sharding = target_sharding(target)
    if sharding is None:  # Orbax reads a jax.Array faster, but a committed one
        default = jnp.zeros(()).sharding
        return default if next(iter(default.device_set)).platform == "cpu" else None
    return sharding


def _uncommitted(x: Any) -> jax.Array:
    """Return an array that is not committed to its device; on a CPU without a copy, since nothing else holds it."""
    return jax.device_put(np.asarray(x), may_alias=True)


def _finish(entry: ArrayEntry, target: Any, stored: dict[str, Any]) -> Any:
    """Return the array of an entry, of the kind of the leaf that it replaces."""
    dtype = np.dtype(np.uint32) if entry.impl else target_dtype(entry, target)
    shape = data_shape(entry.shape, _known(entry.impl))
    if entry.name is None:
        if math.prod(entry.shape):
            raise malformed(entry.to_json())
        x = np.zeros(shape, stored_dtype(dtype))
    else:
        x = stored.pop(entry.name)
        if not is_array(x) or x.dtype != stored_dtype(dtype) or tuple(x.shape) != shape:
            raise damaged(f"the array {entry.name} is not the one of the index")
    kind, sharding = target_kind(entry, target), target_sharding(target)
    if kind == JAX and sharding is None:
        x = _uncommitted(x)
    x = from_stored(x, dtype, entry.impl)
    if kind != JAX:
        return np.asarray(x)[()] if kind == SCALAR else x
    if sharding is not None and (not isinstance(x, jax.Array) or x.sharding != sharding):
        x = jax.device_put(x, sharding)
    return with_weak_type(x) if entry.weak else x


def _known(impl: str | None) -> str | None:
    """Return the name of an implementation of keys, after checking that it exists."""
    if impl is not None:
        try:
            jax.eval_shape(lambda: jax.random.key(0, impl=impl))
        except ValueError as error:
            raise damaged(f"{impl!r:.40} is not an implementation of random keys") from error
    return impl


def _new_holder(leaf: ModuleLeaf, entries: Leaves, arrays: dict[int, Any]) -> Any:
    """Return a Variable with the new value, or the new array leaf."""
    if entries is None:
        return leaf.holder.replace(Empty) if isinstance(leaf.holder, Variable) else leaf.holder
    paths = [encode_path(at) for at, _ in flatten_value(leaf.value) or ()]
    new = [_value_of(entries[at], arrays) for at in paths]
    value = jax.tree.unflatten(jax.tree.structure(leaf.value), new)
    return leaf.holder.replace(value) if isinstance(leaf.holder, Variable) else value


def _value_of(entry: CheckpointEntry, arrays: dict[int, Any]) -> Any:
    return arrays[id(entry)] if isinstance(entry, ArrayEntry) else entry.value


def _fill_values(values: Any, arrays: dict[int, Any]) -> Any:
    """Replace the entries among the plain values by their arrays."""
    if isinstance(values, ArrayEntry):
        return arrays[id(values)]
    if isinstance(values, dict):
        return {key: _fill_values(x, arrays) for key, x in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)([_fill_values(x, arrays) for x in values])
    return values
