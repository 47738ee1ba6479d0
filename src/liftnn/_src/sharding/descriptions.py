"""Texts by path about modules, and about the program that creates them, to compare processes by."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from liftnn._src.compilation.jaxpr import make_jaxpr
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.views import describe_paths
from liftnn._src.printing import ordered_repr
from liftnn._src.trees import format_path, is_array
from liftnn._src.variables.variable import Variable

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def describe_modules(tree: Any) -> dict[str, str]:
    """Return a text about all that is at each path of a tree of modules.

    Args:
      tree: The modules; they may be abstract.

    Returns:
      For each path: class, metadata, static value; dtype, shape and sharding of arrays, and a digest of the content of
      those that this process holds as a whole.
    """
    walked = walk_tree(tree)
    texts = {
        path: _ADDRESS.sub("", text)
        for path, (_, text) in describe_paths(walked.graphdef, format_path).items()
    }
    for path, x in walked.leaves():
        values = jax.tree.leaves(x.raw_value) if isinstance(x, Variable) else [x]
        metadata = _metadata_text(x.get_metadata()) if isinstance(x, Variable) else ""
        arrays = ", ".join(map(_array_text, values))
        texts[path] = f"{type(x).__name__ if isinstance(x, Variable) else 'an array'} {arrays}{metadata}"
    return {format_path(path): text for path, text in texts.items()}


def _metadata_text(metadata: Mapping[str, Any]) -> str:
    """Return a text about metadata that were set."""
    shown = ", ".join(f"{name}={ordered_repr(value)}" for name, value in metadata.items() if value != ())
    return _ADDRESS.sub("", f" with {shown}") if shown else ""


def describe_array(x: Any) -> str:
    """Return a text about an array, or another leaf, without its content: dtype, shape, and where it is.

    Args:
      x: An array, an abstract one, or any other value.

    Returns:
      The text, which does not depend on the process.
    """
    if not isinstance(x, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
        return type(x).__name__
    text = f"{x.dtype.name}[{','.join(map(str, x.shape))}]"
    sharding = getattr(x, "sharding", None)
    if isinstance(x, jax.Array) and x.is_fully_replicated:
        return text if x.is_fully_addressable else f"{text} on several processes"
    return (
        text
        if sharding is None
        else f"{text} sharded by {getattr(sharding, 'spec', type(sharding).__name__)}"
    )


def _array_text(x: Any) -> str:
    """Return a text about an array, with a digest of its content if this process holds it as a whole."""
    if not isinstance(x, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
        return _ADDRESS.sub("", repr(x))
    if isinstance(x, jax.ShapeDtypeStruct) or (isinstance(x, jax.Array) and not x.is_fully_replicated):
        return describe_array(x)
    return f"{describe_array(x)} of content {_digest(_local(x).tobytes())}"


def _local(x: Any) -> np.ndarray:
    """Return an array that this process holds as a whole."""
    if isinstance(x, jax.Array):
        x = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        x = x.addressable_shards[0].data
    return np.ascontiguousarray(np.asarray(x))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def describe_programs(make: Callable[[], Any]) -> dict[str, str]:
    """Return a text about the program of each array in the modules that a function creates.

    Two processes with another seed have equal modules before anything is computed, and may keep no random stream; but
    the programs of their arrays differ in a constant.

    Args:
      make: A function without arguments that creates modules; it is traced.

    Returns:
      For the path of each array a digest of the operations and constants that compute it.
    """
    paths: list[str] = []

    def create() -> list[Any]:
        paths.clear()
        arrays: list[Any] = []
        for path, x in walk_tree(make()).leaves():
            for leaf in jax.tree.leaves(x.raw_value) if isinstance(x, Variable) else [x]:
                if is_array(leaf):
                    paths.append(format_path(path))
                    arrays.append(jnp.asarray(leaf))
        return arrays

    outputs = _digest_outputs(make_jaxpr(create)())
    texts: dict[str, str] = {}
    for path, digest in zip(paths, outputs, strict=True):
        texts[path] = f"{texts[path]}, {digest}" if path in texts else digest
    return texts


def _digest_outputs(closed: Any) -> list[str]:
    """Return a digest for each output of a jaxpr: of the equations and constants from which it is computed."""
    known = dict(zip(closed.jaxpr.constvars, map(_array_text, closed.consts), strict=True))

    def of(x: Any) -> str:
        return f"{x.val!r} {x.aval}" if hasattr(x, "val") else known[x]  # a literal, or a variable

    for equation in closed.jaxpr.eqns:
        params = _ADDRESS.sub("", " ".join(map(_param_text, equation.params.items())))
        inputs = " ".join(map(of, equation.invars))
        digest = _digest(f"{equation.primitive.name} {params} {inputs}".encode())
        known.update((out, f"{digest}.{i}") for i, out in enumerate(equation.outvars))
    return [_digest(of(x).encode()) for x in closed.jaxpr.outvars]


def _param_text(param: tuple[str, Any]) -> str:
    """Return a text about a parameter of an equation; of an inner program with its constants."""
    name, value = param
    consts = " ".join(map(_array_text, getattr(value, "consts", ())))
    return f"{name}={value} {consts}"
