"""Rngs: named streams of random keys, each a key and a count, so that no key is given out twice."""

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
    """A typed key from a seed or key."""
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
    """The error for something that is neither seed nor key."""
    return errors.ArgumentError(
        f"The stream {name!r} of an Rngs needs an int or a PRNG key, not {seed!r:.60}.",
        "Pass an int such as 0, or jax.random.key(0).",
    )


class RngStream(Module):
    """One stream of random keys: the n-th key is `fold_in(key, n)`.

    Args:
      key: An int seed or a PRNG key.
      tag: Its name.

    Raises:
      ArgumentError: If `key` is neither.

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
        """The next key."""
        if self.key.value.ndim:
            raise errors.ArgumentError(
                f"The stream {self.tag!r} holds keys of shape {self.key.value.shape}, one for each lane of a vmap.",
                "Draw from it inside the vmap, with the Rngs mapped over axis 0.",
            )
        key = jax.random.fold_in(self.key.value, self.count.value)
        self.count.value = self.count.value + 1
        return key


class Rngs(Module):
    """Named streams of random keys.

    `rngs.params()` gives the next key of the stream `params`, or of the default stream if there is none of that
    name; `rngs()` gives the next key of the default stream. No key is given out twice.

    Args:
      default: An int seed or PRNG key for the default stream, or a mapping of names to them. The default, None,
        makes no default stream.
      **streams: Seeds or keys of the named streams.

    Raises:
      ArgumentError: If one of them is neither.

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
                f"Make it with Rngs({name}=seed), or with a default: Rngs(seed).",
            )
        return default

    def __getitem__(self, name: str) -> RngStream:
        return getattr(self, name)

    def __call__(self) -> jax.Array:
        """The next key of the default stream."""
        return self.default()

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, x in vars(self).items() if isinstance(x, RngStream)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and isinstance(vars(self).get(name), RngStream)

    def items(self) -> Iterator[tuple[str, RngStream]]:
        """Names and streams."""
        return iter([(name, vars(self)[name]) for name in self])

    def fork(self, **split: int | tuple[int, ...]) -> Rngs:
        """A new Rngs whose streams start from the next key of each of these.

        Args:
          **split: For some streams the number, or shape, of keys to make for them, for use under `vmap`.

        Returns:
          The new Rngs; the counts of this one advance by one.

        Raises:
          ArgumentError: If a name is not a stream.
        """
        unknown = [name for name in split if name not in self]
        if unknown:
            raise errors.ArgumentError(
                f"This Rngs has no stream {unknown[0]!r}; it has: {', '.join(self)}.", "Check the spelling."
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
        """A new Rngs with one key for each lane, for use under `vmap` with axis 0.

        Args:
          *filters: The number of keys, or the shape of an array of them. With filters instead, or nothing, this is
            `Module.split`.
          only: Which streams: a filter of their Variables, such as the name, which is their tag. The default is all;
            the others keep one key.

        Returns:
          The new Rngs; the counts of this one advance by one.
        """
        if not (len(filters) == 1 and _is_shape(filters[0])):
            return super().split(*filters)
        chosen = to_predicate(only)
        return self.fork(**{n: filters[0] for n, stream in self.items() if _is_chosen(chosen, (n,), stream)})


def _is_shape(x: Any) -> bool:
    """Whether `x` is an int or a tuple of ints."""
    sizes = x if isinstance(x, tuple) and x else (x,)
    return all(isinstance(n, int) and not isinstance(n, bool) for n in sizes)


def _is_chosen(predicate: Predicate, path: Path, stream: RngStream) -> bool:
    """Whether a filter means a stream: both of its Variables."""
    return predicate((*path, "key"), stream.key) and predicate((*path, "count"), stream.count)


class SplitStreams:
    """The streams that `split_rngs` has split; used in a `with` statement, they are joined at its end.

    Args:
      streams: The streams, before they are split.
    """

    def __init__(self, streams: list[RngStream]):
        self._kept = [(stream, stream.key.value, stream.count.value) for stream in streams]

    def restore(self) -> None:
        """Puts back the keys from before the split; the second time does nothing, so that no key is given out twice."""
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
    """Gives streams of random keys one key for each lane, in place, for use under `vmap` with axis 0.

    Without it, `vmap` gives each lane keys of its own as well; with it, you choose the streams, and the lanes' keys are
    yours to keep. `Rngs.split` makes a new Rngs instead.

    Args:
      node: A module, or any pytree with modules in it. Without it, the result is a decorator, which splits the streams
        in the arguments of a function for the time of each call.
      splits: How many keys, or the shape of an array of them.
      only: Which streams: a filter of their Variables, such as the name, which is their tag. The default is all.
      squeeze: Whether the streams get one new key without an axis; `splits` must be 1. The default is False.

    Returns:
      The split streams: a context manager that joins them again, as does its method `restore`. The counts before the
      split have advanced by one.

    Raises:
      ArgumentError: If `splits` is no shape, if `squeeze` does not go with it, or if a stream has been split already.
      FilterError: If there is no such stream.

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
            f"`splits` must be an int or a tuple of ints, not {splits!r}.", "Correct it."
        )
    if squeeze and splits != 1:
        raise errors.ArgumentError(f"squeeze=True needs splits=1, not {splits!r}.", "Leave one of them out.")
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
    """Splits the chosen streams of a tree of modules."""
    predicate = to_predicate(only)
    found = [(path, x) for path, x in iter_graph(node) if isinstance(x, RngStream)]
    streams = [stream for path, stream in found if _is_chosen(predicate, path, stream)]
    if not streams and only is not ...:
        raise errors.FilterError(f"No random stream matches {predicate!r}.", "Correct `only`.")
    keys = [stream() for stream in streams]
    split = SplitStreams(streams)
    for stream, key in zip(streams, keys, strict=True):
        stream.key.value = jax.random.split(key, splits)[0] if squeeze else jax.random.split(key, splits)
        stream.count.value = jnp.zeros(stream.key.value.shape, jnp.uint32)
    return split


@boundary
def reseed(tree: Any, /, **streams: Any) -> None:
    """Starts streams of random keys anew, in place, wherever a tree of modules holds them.

    Args:
      tree: A module, or any pytree with modules in it.
      **streams: New seeds or keys by stream name; their counts go back to 0.

    Raises:
      ArgumentError: If no module holds a stream of that name.
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
            f"There is no stream {', '.join(sorted(missing))} in it.", "Check the names."
        )
