"""`check_replicas`: whether all processes hold the same model; if not, the message names the paths."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from liftnn import errors
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.views import describe_paths
from liftnn._src.publish import publish
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import format_path, list_paths
from liftnn._src.variables.variable import Variable

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@boundary
def check_replicas(*modules: Any) -> None:
    """Check that all processes of `jax.distributed` hold the same modules.

    Structure, classes, metadata, static attributes, shapes, dtypes and shardings are compared, and the contents of
    arrays that each process holds as a whole, among them the keys and counts of random streams. The contents of arrays
    that are sharded over processes are not compared: each process has its own part. All processes must call it at the
    same point, for example after they have created the model. With one process it does nothing.

    Args:
      *modules: Modules, or trees of them. Each process passes its own.

    Raises:
      StructureError: If a process differs from the first one; raised in all of them. The message has the paths, and
        what each process has there.

    Example:
      >>> import liftnn
      >>> liftnn.check_replicas(liftnn.Linear(2, 3, rngs=liftnn.Rngs(0)))
    """
    if jax.process_count() == 1:
        return
    failure: Exception | None = None
    try:
        own = {format_path(path): text for path, text in _describe(modules).items()}
    except Exception as error:  # raised below, in all processes, since the others wait for this one
        failure, own = error, {"modules": f"{type(error).__name__}: {error}".partition("\n")[0]}
    blob = np.frombuffer(json.dumps(own).encode(), np.uint8)
    digest = np.frombuffer(hashlib.sha256(blob.tobytes()).digest(), np.uint8)
    sizes = _gather(np.array([len(blob)], np.int32))[:, 0]
    if (_gather(digest) == digest).all():
        if failure is not None:
            raise failure
        return
    blobs = _gather(np.pad(blob, (0, int(sizes.max()) - len(blob))))
    found = [json.loads(row[:size].tobytes()) for row, size in zip(blobs, sizes, strict=True)]
    lines = [
        f"{path}: {_differing([each.get(path, 'missing') for each in found])}"
        for path in dict.fromkeys(path for each in found for path in each)
        if len({each.get(path) for each in found}) > 1
    ]
    raise errors.StructureError(
        f"The processes do not hold the same modules:\n{list_paths(lines)}",
        "Create the modules in the same way in each process, with the same seeds; only the data differ by process.",
    ) from failure


def _differing(texts: list[str]) -> str:
    """Format what the processes have at a path: the first process, and each that differs from it."""
    others = [f"process {i} has {text}" for i, text in enumerate(texts) if text != texts[0]]
    rest = f" and {len(others) - 2} more differ" if len(others) > 2 else ""
    return f"process 0 has {texts[0]}, {', '.join(others[:2])}{rest}"


def _describe(modules: Any) -> dict[Any, str]:
    """Return a text about all that is at each path."""
    tree = modules if len(modules) > 1 else modules[0] if modules else ()
    walked = walk_tree(tree)
    texts: dict[Any, str] = {}
    for path, (_, text) in describe_paths(walked.graphdef, format_path).items():
        texts[path] = _ADDRESS.sub("", text)
    for path, x in walked.leaves():
        values = jax.tree.leaves(x.raw_value) if isinstance(x, Variable) else [x]
        metadata = _metadata_text(x.get_metadata()) if isinstance(x, Variable) else ""
        arrays = ", ".join(map(_array_text, values))
        texts[path] = f"{type(x).__name__ if isinstance(x, Variable) else 'an array'} {arrays}{metadata}"
    return texts


def _metadata_text(metadata: Mapping[str, Any]) -> str:
    """Return a text about metadata that were set."""
    shown = ", ".join(f"{name}={value!r}" for name, value in metadata.items() if value != ())
    return _ADDRESS.sub("", f" with {shown}") if shown else ""


def _array_text(x: Any) -> str:
    """Return a text about an array: its type, where it is if it is sharded, and a sum of its content if it is not."""
    if not isinstance(x, (jax.Array, np.ndarray)):
        return _ADDRESS.sub("", repr(x))
    text = f"{x.dtype.name}[{','.join(map(str, x.shape))}]"
    if isinstance(x, jax.Array):
        if not x.is_fully_replicated:
            return f"{text} sharded by {getattr(x.sharding, 'spec', type(x.sharding).__name__)}"
        x = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        x = np.asarray(x.addressable_shards[0].data)
    return f"{text} of content {hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()[:8]}"


def _gather(x: np.ndarray) -> np.ndarray:
    """Return the arrays of all processes, of the same shape, stacked."""
    firsts = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh(np.array([firsts[i] for i in sorted(firsts)]), ("process",))
    rows, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("process"), PartitionSpec()))
    part = jax.device_put(x[None], firsts[jax.process_index()])
    stacked = jax.make_array_from_single_device_arrays((len(firsts), *x.shape), rows, [part])
    return np.asarray(jax.jit(lambda x: x, out_shardings=whole)(stacked))


publish(check_replicas)
