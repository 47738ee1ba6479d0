"""Rngs: named streams of random keys.

A stream is a key and a count, both Variables; its n-th key is `fold_in(key, n)`. Transforms carry the count, so a
stream never draws the same key twice. `split_rngs` and `Rngs.split` give each batch element of a `vmap` its own keys.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

import jax
import jax.numpy as jnp

from liftnn import errors
from liftnn._src.filters import Filter, Predicate, to_predicate
from liftnn._src.graph.graphdef import GraphDef
from liftnn._src.lifting.configure import MISSING
from liftnn._src.modules.module import Module
from liftnn._src.modules.verbs import iter_graph
from liftnn._src.tracebacks import boundary
from liftnn._src.trees import Path, is_argument_array
from liftnn._src.variables.operators import unwrap
from liftnn._src.variables.state import State
from liftnn._src.variables.variable_types import RngCount, RngKey

F = TypeVar("F", bound=Callable[..., Any])


def _as_key(seed: Any, name: str) -> Any:
    """Return a typed key from an int seed or a PRNG key."""
    seed = unwrap(seed)
    if jnp.issubdtype(getattr(seed, "dtype", int), jax.dtypes.prng_key):
        return seed
    if not is_argument_array(seed):
        raise _bad_seed(seed, name)
    shape, dtype = jnp.shape(seed), jnp.result_type(seed)
    if shape == () and jnp.issubdtype(dtype, jnp.integer):
        return jax.random.key(seed)
    if shape[-1:] == (2,) and dtype == jnp.uint32:
        return jax.random.wrap_key_data(seed)
    raise _bad_seed(seed, name)


def _bad_seed(seed: Any, name: str) -> errors.ArgumentError:
    """Return the error for an object that is neither a seed nor a key."""
    return errors.ArgumentError(
        f"The stream {name!r} of an Rngs needs an int or a PRNG key, not {seed!r:.60}.",
        "Pass an int such as 0, or jax.random.key(0).",
    )


class RngStream(Module):
    """A stream of random keys: the n-th key is `fold_in(key, n)`.

    Args:
      key: An int seed or a PRNG key.
      tag: The name of the stream. The default is `"default"`.

    Raises:
      ArgumentError: If `key` is neither an int nor a PRNG key.

    Example:
      >>> import jax, liftnn
      >>> stream = liftnn.RngStream(0, tag="dropout")
      >>> bool((stream() == jax.random.fold_in(jax.random.key(0), 0)).all()), int(stream.count)
      (True, 1)
    """

    def __init__(self, key: Any, tag: str = "default"):
        self.tag = tag
        self.key = RngKey(_as_key(key, tag), tag=tag)
        self.count = RngCount(jnp.zeros(self.key.value.shape, jnp.uint32), tag=tag)

    def __call__(self) -> jax.Array:
        """Draw the next key, of shape `()`, and advance the count by one."""
        if self.key.value.ndim:
            raise errors.ArgumentError(
                f"The stream {self.tag!r} holds keys of shape {self.key.value.shape}, one for each batch element of a "
                "vmap.",
                "Draw from it inside the vmap, with the Rngs mapped over axis 0.",
            )
        key = jax.random.fold_in(self.key.value, self.count.value)
        self.count.value = self.count.value + 1
        return key


class Rngs(Module):
    """A collection of named streams of random keys.

    `rngs.params()` draws the next key of the stream `params`, or of the default stream if `params` does not exist.
    `rngs()` draws the next key of the default stream. A stream never draws the same key twice.

    Args:
      default: An int seed or a PRNG key for the default stream, or a dict of seeds and keys by stream name. The
        default, None, creates no default stream.
      **streams: Int seeds or PRNG keys by stream name.

    Raises:
      ArgumentError: If a value is neither an int nor a PRNG key.

    Example:
      >>> import jax, liftnn
      >>> rngs = liftnn.Rngs(0, dropout=1)
      >>> rngs.dropout().shape, rngs.params().shape
      ((), ())
    """

    def __init__(self, default: Any = None, **streams: Any):
        if isinstance(default, dict):
            streams = {**default, **streams}
        elif default is not None:
            streams = {"default": default, **streams}
        for name, seed in streams.items():
            setattr(self, name, seed if isinstance(seed, RngStream) else RngStream(seed, tag=name))

    @boundary
    def __getattr__(self, name: str) -> RngStream:
        if name.startswith("_"):
            raise AttributeError(name)
        default = vars(self).get("default")
        if default is None:
            known = ", ".join(self) or "none"
            raise errors.AttributeNameError(
                f"This Rngs has no stream {name!r} and no default stream; it has: {known}.",
                f"Create the Rngs with this stream, Rngs({name}=seed), or with a default stream, Rngs(seed).",
            )
        return default

    def __getitem__(self, name: str) -> RngStream:
        return getattr(self, name)

    def __call__(self) -> jax.Array:
        """Draw the next key of the default stream, of shape `()`."""
        return self.default()

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, x in vars(self).items() if isinstance(x, RngStream)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and isinstance(vars(self).get(name), RngStream)

    def items(self) -> Iterator[tuple[str, RngStream]]:
        """Return an iterator over the names and streams."""
        return iter([(name, vars(self)[name]) for name in self])

    def fork(self, **split: int | tuple[int, ...]) -> Rngs:
        """Create a new Rngs with the same streams, each seeded by the next key of the old one.

        Args:
          **split: By stream name the number, or the shape, of keys to create for the stream, for use under `vmap`.
            Other streams get one key.

        Returns:
          The new Rngs. The counts of the old streams advance by one.

        Raises:
          ArgumentError: If a name is not a stream of this Rngs.
        """
        unknown = [name for name in split if name not in self]
        if unknown:
            raise errors.ArgumentError(
                f"This Rngs has no stream {unknown[0]!r}; it has: {', '.join(self)}.",
                "Pass the names of existing streams.",
            )
        keys = {name: stream() for name, stream in self.items()}
        return Rngs(
            {name: jax.random.split(k, split[name]) if name in split else k for name, k in keys.items()}
        )

    @overload
    def split(self, shape: int | tuple[int, ...], /, *, only: Filter = ...) -> Rngs: ...

    @overload
    def split(self, *filters: Filter) -> tuple[*tuple[State, ...], GraphDef[Rngs]]: ...

    def split(self, *filters: Any, only: Filter = ...) -> Any:
        """Create a new Rngs with one key for each batch element, for use under `vmap` with axis 0.

        Args:
          *filters: The number of keys per stream, or their shape. With filters, or without arguments, this is
            `Module.split`.
          only: A filter that selects the streams to split by their Variables, such as the name of a stream. The
            default, `...`, means all. Other streams get one key.

        Returns:
          The new Rngs. The counts of the old streams advance by one.
        """
        if not (len(filters) == 1 and _is_shape(filters[0])):
            return super().split(*filters)
        chosen = to_predicate(only)
        return self.fork(**{n: filters[0] for n, stream in self.items() if _is_chosen(chosen, (n,), stream)})


def _is_shape(x: Any) -> bool:
    """Check whether `x` is an int or a tuple of ints."""
    sizes = x if isinstance(x, tuple) and x else (x,)
    return all(isinstance(n, int) and not isinstance(n, bool) for n in sizes)


def _is_chosen(predicate: Predicate, path: Path, stream: RngStream) -> bool:
    """Check whether a filter selects a stream: both of its Variables."""
    return predicate((*path, "key"), stream.key) and predicate((*path, "count"), stream.count)


def select_streams(node: Any, only: Filter) -> list[RngStream]:
    """Return the streams in a tree of modules that a filter selects: both of their Variables."""
    predicate = to_predicate(only)
    found = [(path, x) for path, x in iter_graph(node) if isinstance(x, RngStream)]
    return [stream for path, stream in found if _is_chosen(predicate, path, stream)]


class SplitStreams:
    """A context manager for streams split by `split_rngs`, which restores their keys at the end.

    Args:
      streams: The streams, before they are split.
    """

    def __init__(self, streams: list[RngStream]):
        self._kept = [(stream, stream.key.value, stream.count.value) for stream in streams]

    def restore(self) -> None:
        """Restore the keys and counts from before the split. A second call does nothing, so that no key repeats."""
        kept, self._kept = self._kept, []
        for stream, key, count in kept:
            stream.key.value, stream.count.value = key, count

    def __enter__(self) -> SplitStreams:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()


@overload
def split_rngs(
    node: Any, /, *, splits: int | tuple[int, ...], only: Filter = ..., squeeze: bool = False
) -> SplitStreams: ...


@overload
def split_rngs(
    *, splits: int | tuple[int, ...], only: Filter = ..., squeeze: bool = False
) -> Callable[[F], F]: ...


@boundary
def split_rngs(
    node: Any = MISSING, /, *, splits: int | tuple[int, ...], only: Filter = ..., squeeze: bool = False
) -> Any:
    """Split streams of random keys in place into one key for each batch element, for use under `vmap` with axis 0.

    By default `vmap` also gives each batch element its own keys of a shared Rngs. `split_rngs` selects the streams and
    keeps the keys of the batch elements in the modules. `Rngs.split` creates a new Rngs instead.

    Args:
      node: A module, or any pytree that contains modules. If it is omitted, the result is a decorator that splits the
        streams in the arguments of a function during each call.
      splits: The number of keys per stream, or their shape.
      only: A filter that selects the streams by their Variables, such as the name of a stream. The default, `...`,
        means all.
      squeeze: Whether each stream gets a single new key of shape `()`; `splits` must be 1. The default is False.

    Returns:
      A context manager that restores the keys of the streams at its end; its method `restore` does the same. Each count
      has then advanced by one.

    Raises:
      ArgumentError: If `splits` is neither an int nor a tuple of ints, if `squeeze` is True and `splits` is not 1, or
        if a stream is already split.
      FilterError: If `only` matches no stream.

    Example:
      >>> import jax, liftnn
      >>> rngs = liftnn.Rngs(0, dropout=1)
      >>> with liftnn.split_rngs(rngs, splits=5, only="dropout"):
      ...   axes = liftnn.StateAxes({"dropout": 0, ...: None})
      ...   keys = liftnn.vmap(lambda rngs: rngs.dropout(), in_axes=axes)(rngs)
      >>> keys.shape, rngs.dropout.key.shape
      ((5,), ())
    """
    if not _is_shape(splits):
        raise errors.ArgumentError(
            f"`splits` must be an int or a tuple of ints, not {splits!r}.",
            "Pass the number of keys, such as 8, or their shape, such as (2, 4).",
        )
    if squeeze and splits != 1:
        raise errors.ArgumentError(
            f"squeeze=True needs splits=1, not {splits!r}.", "Pass splits=1 or squeeze=False."
        )
    if node is not MISSING:
        return _split_in_place(node, splits, only, squeeze)

    def decorate(f: Callable[..., Any]) -> Callable[..., Any]:
        @boundary
        @functools.wraps(f, updated=())
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with _split_in_place((args, kwargs), splits, only, squeeze):
                return f(*args, **kwargs)

        return wrapper

    return decorate


def _split_in_place(node: Any, splits: int | tuple[int, ...], only: Filter, squeeze: bool) -> SplitStreams:
    """Split the selected streams of a tree of modules in place."""
    streams = select_streams(node, only)
    if not streams and only is not ...:
        raise errors.FilterError(
            f"No random stream matches {to_predicate(only)!r}.",
            "Pass the name of an existing stream as `only`, or leave it out to split all streams.",
        )
    keys = [stream() for stream in streams]
    split = SplitStreams(streams)
    for stream, key in zip(streams, keys, strict=True):
        stream.key.value = jax.random.split(key, splits)[0] if squeeze else jax.random.split(key, splits)
        stream.count.value = jnp.zeros(stream.key.value.shape, jnp.uint32)
    return split


@boundary
def reseed(tree: Any, /, **streams: Any) -> None:
    """Set new seeds for streams of random keys, in place, in all modules of a tree.

    Args:
      tree: A module, or any pytree that contains modules.
      **streams: New int seeds or PRNG keys by stream name. The counts of these streams are reset to 0.

    Raises:
      ArgumentError: If no module has a stream of that name, or if a value is neither an int nor a PRNG key.
      TraceContextError: If a stream belongs to another trace.

    Example:
      >>> import liftnn
      >>> layer = liftnn.Dropout(0.5, rngs=liftnn.Rngs(dropout=0))
      >>> liftnn.reseed(layer, dropout=7)
    """
    missing = set(streams)
    for _, x in iter_graph(tree):
        if isinstance(x, RngStream) and x.tag in streams:
            missing.discard(x.tag)
            x.key.value = _as_key(streams[x.tag], x.tag)
            x.count.value = jnp.zeros(x.key.value.shape, jnp.uint32)
    if missing:
        raise errors.ArgumentError(
            f"No random stream in the tree is named {', '.join(map(repr, sorted(missing)))}.",
            "Pass the names of existing streams.",
        )
