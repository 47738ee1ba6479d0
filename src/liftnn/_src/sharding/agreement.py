"""Agreement between the processes of `jax.distributed`: all go on, or all raise, and none waits for another one."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from liftnn import errors
from liftnn._src.trees import list_paths

T = TypeVar("T")


class Report(NamedTuple):
    """What one process tells the others.

    Args:
      function: The function of liftnn that it has called.
      failure: The class and the message of the error that it will raise; None if it goes on.
      texts: What it has at each path.
    """

    function: str
    failure: tuple[str, str] | None
    texts: Mapping[str, str]


def agree(
    function: str,
    verb: str,
    prepare: Callable[[], T],
    describe: Callable[[T], Mapping[str, str]],
    mesh: Any = None,
) -> T:
    """Prepare what is to be done, and return it if all processes have prepared the same.

    Each process sends a hash; only if two of them differ, the texts follow, so that the message can name the paths.
    With one process, this is `prepare()`.

    Args:
      function: The function that the user has called, for messages.
      verb: What it does with modules: "create".
      prepare: A function without arguments. It must not wait for other processes.
      describe: Returns for what was prepared a text by path.
      mesh: The mesh whose processes take part. The default, None, means all processes.

    Returns:
      What was prepared.

    Raises:
      Exception: What `prepare` raises in this process.
      LiftError: If it raises in another process only: an error of the same class if it is one of liftnn, else a
        StructureError.
      StructureError: If the processes describe it differently, or have called different functions.
    """
    devices = _first_devices(mesh)
    if len(devices) < 2:
        return prepare()
    failure: Exception | None = None
    prepared: Any = None
    texts: Mapping[str, str] = {}
    try:
        prepared = prepare()
        texts = describe(prepared)
    except Exception as error:  # raised below: the other processes wait for the report of this one
        failure = error
    failed = None if failure is None else (type(failure).__name__, str(failure))
    reports = _exchange(Report(function, failed, texts), devices)
    if failure is not None:
        raise failure
    if reports:
        raise _disagreement(reports, verb)
    return prepared


def is_first_process() -> bool:
    """Return whether this is the process that writes what all processes have; the only one counts."""
    return jax.process_index() == 0


def _first_devices(mesh: Any) -> dict[int, Any]:
    """Return the first device of each process that takes part; none if this process does not."""
    if jax.process_count() == 1:
        return {}
    devices = mesh.devices.flat if isinstance(mesh, Mesh) else jax.devices()
    firsts: dict[int, Any] = {}
    for device in devices:
        firsts.setdefault(device.process_index, device)
    return {i: firsts[i] for i in sorted(firsts)} if jax.process_index() in firsts else {}


def _exchange(report: Report, devices: dict[int, Any]) -> dict[int, Report]:
    """Return the reports of all processes by process; none if all are the same."""
    blob = np.frombuffer(json.dumps(report).encode(), np.uint8)
    digest = np.frombuffer(hashlib.sha256(blob.tobytes()).digest(), np.uint8)
    length = np.array([len(blob)], "<u4").view(np.uint8)
    heads = _gather(np.concatenate([length, digest]), devices)
    if (heads == heads[0]).all():
        return {}
    lengths = [int(head[:4].copy().view("<u4")[0]) for head in heads]
    blobs = _gather(np.pad(blob, (0, max(lengths) - len(blob))), devices)
    texts = [row[:size].tobytes() for row, size in zip(blobs, lengths, strict=True)]
    return {i: Report(*json.loads(text)) for i, text in zip(devices, texts, strict=True)}


def _gather(x: np.ndarray, devices: dict[int, Any]) -> np.ndarray:
    """Return the arrays of all processes, of the same shape, stacked."""
    mesh = Mesh(np.array(list(devices.values())), ("process",))
    with jax.set_mesh(mesh):  # the user's mesh has other devices
        part = jax.device_put(x[None], devices[jax.process_index()])
        rows = NamedSharding(mesh, PartitionSpec("process"))
        stacked = jax.make_array_from_single_device_arrays((len(devices), *x.shape), rows, [part])
        return np.asarray(_replicate(mesh)(stacked))


@functools.cache
def _replicate(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """Return a program that copies an array to all devices of a mesh; kept, so that it is compiled once."""

    @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, PartitionSpec()))
    def replicate(x: jax.Array) -> jax.Array:
        return x

    return replicate


_PROCESS_REMEDY = (
    "Create the modules in the same way in each process, with the same seeds; only the data may differ."
)


def _disagreement(reports: dict[int, Report], verb: str) -> errors.LiftError:
    """Return the error for a process that goes on, when the others do not do the same."""
    functions = {i: report.function for i, report in reports.items()}
    if len(set(functions.values())) > 1:
        return errors.StructureError(
            f"The processes have called different functions: {_differing(functions)}.",
            "Call the functions of liftnn that create, save, restore or compare modules in the same order in each "
            "process.",
        )
    failures = {i: report.failure for i, report in reports.items() if report.failure is not None}
    if failures:
        name = next(iter(failures.values()))[0]
        lines = [f"process {i}: {cls}: {text}".replace("\n", "\n    ") for i, (cls, text) in failures.items()]
        found = getattr(errors, name, None)
        kind = (
            found
            if isinstance(found, type) and issubclass(found, errors.LiftError)
            else errors.StructureError
        )
        where = next(iter(functions.values()))
        return kind(
            f"{where} succeeded here, but failed in {'another process' if len(failures) == 1 else 'other processes'}:\n"
            f"{list_paths(lines, 2)}",
            _PROCESS_REMEDY,
        )
    paths = dict.fromkeys(path for report in reports.values() for path in report.texts)
    found = {path: {i: report.texts.get(path, "missing") for i, report in reports.items()} for path in paths}
    lines = [f"{path}: {_differing(texts)}" for path, texts in found.items() if len(set(texts.values())) > 1]
    return errors.StructureError(
        f"The processes do not {verb} the same modules:\n{list_paths(lines)}", _PROCESS_REMEDY
    )


def _differing(texts: dict[int, str]) -> str:
    """Format what the processes have: the first process, and each that differs from it."""
    (first, shown), *_ = texts.items()
    others = [f"process {i} has {text}" for i, text in texts.items() if text != shown]
    rest = f" and {len(others) - 2} more differ" if len(others) > 2 else ""
    return f"process {first} has {shown}, {', '.join(others[:2])}{rest}"
