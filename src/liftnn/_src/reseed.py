"""Reseed streams of random keys, in place, in all modules of a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.graph.description import NodeSpec, walk_edges
from liftnn._src.graph.graphdef import walk_tree
from liftnn._src.graph.undo import to_the_end
from liftnn._src.publish import publish
from liftnn._src.rngs import Rngs, RngStream, as_key
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, format_path

Policy = Callable[[Path, jax.Array, tuple[int, ...]], jax.Array]
"""A function `(path, key, shape) -> keys` that turns the new key of a stream into keys of the stream's shape."""


@boundary
def reseed(
    tree: Any,
    /,
    *,
    graph: bool | None = None,
    policy: Literal["scalars_only", "match_shape"] | Policy = "scalars_only",
    **streams: Any,
) -> None:
    """Set new keys for streams of random keys, in place, in all modules of a tree.

    A seed is that of a stream, and each stream of that name in the tree starts from the next key of it, in the order of
    sorted attribute names. So two Dropout layers have different masks.

    Args:
      tree: A module, or any pytree that contains modules.
      graph: Has no effect; accepted because Flax NNX has it. The default is None.
      policy: What happens to streams that are split, and hold keys of a shape other than `()`. The default,
        `"scalars_only"`, is an error; `"match_shape"` splits the new key into that shape. A function
        `(path, key, shape) -> keys` returns the keys of each stream.
      **streams: New int seeds or PRNG keys by stream name. The counts of these streams are reset to 0.

    Raises:
      ArgumentError: If no module has a stream of that name, if a value is neither an int nor a PRNG key, if a stream is
        split and `policy` is `"scalars_only"`, or if `policy` is neither a function nor one of the two names. Nothing
        is changed then.
      TraceContextError: If a stream belongs to another trace.

    Example:
      >>> import jax.numpy as jnp, liftnn
      >>> rngs = liftnn.Rngs(dropout=0)
      >>> first, second = [liftnn.Dropout(0.5, rngs=rngs) for _ in range(2)]
      >>> liftnn.reseed([first, second], dropout=7)
      >>> bool((first(jnp.ones(100)) == second(jnp.ones(100))).all())
      False
    """
    fit = _POLICIES.get(policy) if isinstance(policy, str) else policy
    if not callable(fit):
        raise errors.ArgumentError(
            f'`policy` must be "scalars_only", "match_shape" or a function, not {policy!r}.',
            "A function takes path, key and shape, and returns keys of that shape.",
        )
    source = Rngs(streams)
    every = list(_streams_of(tree))
    tags = {stream.tag for _, stream in every}
    missing = set(streams).difference(tags)
    if missing:
        raise errors.ArgumentError(
            f"No random stream in the tree is named {', '.join(map(repr, sorted(missing)))}; it has: "
            f"{', '.join(sorted(map(str, tags))) or 'none'}.",
            "Pass the names of existing streams.",
        )
    found = [(path, stream) for path, stream in every if stream.tag in streams]
    keys = [as_key(fit(path, source[x.tag](), x.key.value.shape), x.tag) for path, x in found]
    counts = [jnp.zeros(key.shape, jnp.uint32) for key in keys]

    def write() -> None:
        for (_, stream), key, count in zip(found, keys, counts, strict=True):
            stream.key.value = key
            stream.count.value = count

    to_the_end(write)


def _scalars_only(path: Path, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return the key for a stream of shape `()`."""
    if shape:
        raise errors.ArgumentError(
            f"The stream at {format_path(path)} holds keys of shape {shape}, one for each batch element of a vmap, but "
            "reseed makes one key.",
            'Pass policy="match_shape", which splits the new key into this shape.',
        )
    return key


def _match_shape(path: Path, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return keys of the stream's shape."""
    return jax.random.split(key, shape) if shape else key


_POLICIES: dict[str, Policy] = {"scalars_only": _scalars_only, "match_shape": _match_shape}


def _streams_of(tree: Any) -> Iterator[tuple[Path, RngStream]]:
    """Yield each stream once, depth first in the order of sorted keys, whatever the order of assignment."""
    walked = walk_tree(tree)
    seen: set[int] = set()
    specs = [_sorted(spec) for spec in walked.graphdef.specs]
    for _, path, edge in walk_edges(specs, walked.graphdef.starts):
        if type(edge) is int and edge not in seen and isinstance(walked.objects[edge], RngStream):
            seen.add(edge)
            yield path, walked.objects[edge]


def _sorted(spec: NodeSpec) -> NodeSpec:
    """Return a node with its keys in order, if they have one."""
    try:
        order: Sequence[int] = sorted(range(len(spec.keys)), key=lambda i: spec.keys[i])
    except TypeError:
        return spec
    return spec._replace(keys=tuple(spec.keys[i] for i in order), edges=tuple(spec.edges[i] for i in order))


publish(reseed)
